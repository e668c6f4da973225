from types import ModuleType
from typing import Any

from numpy.typing import NDArray

def use_kernel(module: ModuleType) -> None: ...

# Whatever a caller wrote comes in here.
def normalize_image(
    image: object,
    mean: object,
    std: object,
    scale: object,
    layout: object,
    swap_channels: object,
    dtype: object,
    out: object,
) -> NDArray[Any]: ...
