# branchnets in a container, for a CPU, NVIDIA GPUs or a TPU VM:
#   docker build --build-arg DEVICE=cuda --tag branchnets .
#   docker run --rm --gpus all --volume "$PWD/runs:/work/runs" branchnets \
#     --config=configs/coded_digits.py --workdir=runs/coded_digits
FROM python:3.11-slim AS build

# cpu, cuda (needs the driver of the host alone) or tpu
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
      cuda | tpu) extras="$DEVICE,gcs,opencv" ;; \
      *) echo "error: DEVICE=$DEVICE; it is cpu, cuda or tpu" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --disable-pip-version-check ".[$extras]"

FROM python:3.11-slim

COPY --from=build /opt/branchnets /opt/branchnets
# As launch/local.sh does: huge pages for what XLA takes from malloc at every step on a CPU.
ENV PATH="/opt/branchnets/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
RUN useradd --create-home --uid 1000 branchnets \
    && mkdir -p /work/runs \
    && chown branchnets: /work /work/runs
WORKDIR /work
COPY configs ./configs
USER 1000
ENTRYPOINT ["python", "-m", "branchnets.main"]
CMD ["--help"]
