"""What 'auto' precision means on this machine."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_COMPUTE_CAPABILITY = 8  # NVIDIA Ampere


def has_fast_bfloat16() -> bool:
    """Whether every GPU here computes in bfloat16, or without any the CPU does."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return bool(_CPU_FLAGS & _cpu_flags())
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return all(
        detail.get("compute_capability", (0, 0))[0] >= _COMPUTE_CAPABILITY for detail in details
    )


def _cpu_flags() -> set[str]:
    """What Linux says of the CPU; nothing elsewhere."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return set(next(flags, "").split())
