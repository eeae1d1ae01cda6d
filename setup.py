"""The distribution: what a Beam worker needs is the base, everything else an extra."""

import sys

if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    sys.exit(
        "imagenet-superres needs Python 3.11 or 3.12, this is "
        f"{sys.version_info.major}.{sys.version_info.minor}"
    )

from setuptools import Extension, find_packages, setup

setup(
    name="imagenet-superres",
    version="0.1.0",
    description=(
        "Single-image super-resolution from the ImageNet URL list: "
        "crawl, dataset, SRCNN and VDSR, PSNR"
    ),
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
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
    package_data={"": ["py.typed", "*.pyi", "*.yaml", "weights/*"]},
    install_requires=[
        "apache-beam>=2.77,<2.78",
        "numpy>=1.26.4,<2",
        "pillow>=12.3,<12.4",  # its bicubic and BLUR decide bytes
        "simplejpeg>=1.9,<2",  # libjpeg-turbo's pixels, as Pillow's, in less time
        "fpng==0.1.0",  # its compressor decides bytes
        "pyarrow>=14",
        "google-crc32c>=1.6,<2",
        "aiohttp>=3.14,<4",
        "aiodns>=4,<5",
        "protego>=0.6,<1",
        "can_ada>=3,<4",  # decides which URLs are one
        "publicsuffixlist>=1.0",
        "requests>=2.34,<3",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "train": [
            "tensorflow>=2.16.2,<2.17",  # the last that tensorflow-io 0.37 works with
            "tensorflow-io==0.37.1",
            "setuptools>=77,<81",  # later ones lack pkg_resources, which its TensorBoard imports
            "keras>=3.15,<4",
            "scikit-image>=0.26,<0.27",
            "matplotlib>=3.10,<4",
            "pyyaml>=6,<7",
        ],
        "train-newest": [  # without s3://, for which tensorflow-io has no release
            "tensorflow>=2.21",
            "tensorboard>=2.16",  # which this TensorFlow writes for but no longer brings
            "keras>=3.15,<4",
            "scikit-image>=0.26,<0.27",
            "matplotlib>=3.10,<4",
            "pyyaml>=6,<7",
        ],
        "aws": ["apache-beam[aws]>=2.77,<2.78"],
        "gcp": ["apache-beam[gcp]>=2.77,<2.78"],
        "dev": [
            "pytest>=9.2,<10",
            "pytest-cov>=7,<8",
            "hypothesis>=6.150,<7",
            "ruff>=0.15,<1",
            "mypy>=2,<3",
            "import-linter>=2.5,<3",
            "types-requests",
            "types-PyYAML",
            "types-tqdm",
            "scikit-learn>=1.7,<2",  # two photographs of the demo
        ],
    },
)
