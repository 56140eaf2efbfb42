# branchnets in a container, for a CPU, NVIDIA GPUs or a TPU VM. The run belongs to whoever starts it,
# in a folder that is there (Docker would make it for root):
#   mkdir -p runs
#   docker build --build-arg DEVICE=cuda --tag branchnets .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD/runs:/app/runs" branchnets \
#     --config=configs/coded_digits.py --workdir=runs/coded_digits
# --gpus needs the NVIDIA Container Toolkit on the host, and DEVICE=cuda its driver of 580 or newer
# (cuda12: of 525 or newer). For a CPU (DEVICE=cpu) without --gpus. On every VM of a TPU slice, on all
# at once, as root for the chips and with the VM's own address to find the others:
#   docker build --build-arg DEVICE=tpu --tag branchnets .
#   docker run --detach --name run --privileged --user 0 --network=host branchnets \
#     --config=configs/coded_digits.py --workdir=gs://BUCKET/RUN
# Streamed images pass from the workers that decode them through shared memory, of which a container
# has 64 MB: add --shm-size=8g, and --volume for where they are.
FROM python:3.11-slim AS build

# cpu, cuda, cuda12 or tpu
ARG DEVICE=cpu

RUN python -m venv /opt/branchnets
ENV PATH="/opt/branchnets/bin:$PATH"
WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE ./
COPY branchnets ./branchnets
# The package sets lower bounds only.
# hadolint ignore=DL3013
RUN case "$DEVICE" in \
      cpu) extras=gcs,opencv ;; \
      cuda | cuda12 | tpu) extras="$DEVICE,gcs,opencv" ;; \
      *) echo "error: DEVICE=$DEVICE; it is cpu, cuda, cuda12 or tpu" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --disable-pip-version-check ".[$extras]"

FROM python:3.11-slim

COPY --from=build /opt/branchnets /opt/branchnets
# As launch/local.sh does: huge pages for what XLA takes from malloc at every step on a CPU.
ENV PATH="/opt/branchnets/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HOME=/home/branchnets \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
# Writable for any --user: caches go home.
RUN useradd --create-home --uid 1000 branchnets \
    && mkdir -p /app/runs \
    && chmod 1777 /home/branchnets /app/runs
WORKDIR /app
COPY configs ./configs
USER 1000
ENTRYPOINT ["python", "-m", "branchnets.main"]
CMD ["--help"]
