import pytest
import tensorflow as tf

from trainer import precision
from trainer.config import Config


@pytest.fixture
def gpus(monkeypatch):
    """Makes this machine have GPUs of these compute capabilities."""

    def gpus(*capabilities):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(capabilities))
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda gpu: {"compute_capability": gpu} if gpu else {},
        )

    return gpus


def test_every_gpu_must_have_it(gpus):
    for capabilities, fast in (
        ([(8, 0)], True),
        ([(9, 0), (8, 6)], True),
        ([(8, 0), (7, 5)], False),
        ([None], False),
    ):
        gpus(*capabilities)
        assert precision.has_fast_bfloat16() == fast


def test_a_cpu_says_so_in_its_flags(gpus, monkeypatch, tmp_path):
    gpus()
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "_CPUINFO", cpuinfo)
    for flags, fast in (
        ("flags\t\t: fpu avx2 avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", False),
        ("", False),
    ):
        cpuinfo.write_text(flags)
        assert precision.has_fast_bfloat16() == fast
    cpuinfo.unlink()
    assert not precision.has_fast_bfloat16()


def test_auto_is_bfloat16_only_for_networks_that_stand_it(monkeypatch):
    monkeypatch.setattr("trainer.config.has_fast_bfloat16", lambda: True)
    assert Config(model="vdsr").resolved().precision == "bfloat16"
    assert Config(model="srcnn").resolved().precision == "float32"
    assert Config(model="vdsr", precision="float16").resolved().precision == "float16"
