"""What an attack in Python gives back, and how it is kept: a table, pictures in a folder, a figure.

result = attack(images)
result.table()                       # pyarrow, a row per image
result.plot().savefig("a.png")       # a matplotlib figure
result.save("result")                # the pictures that `underfire evaluate` takes, maps and table
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.core.types import Flags, Images, Labels, Maps, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # images in a figure
TABLE = "table"  # its name without the ending
COLUMNS = ("confidence", "map_l1", "iou", "benign_l1", "linf")


@dataclass(frozen=True)
class Result:
    """One row per image. Maps come from the deployed interpreter; everything is measured on `adversarial`.

    `labels` are the classes that the model reports of the benign images, which their `benign_maps` explain; `maps`
    explain the predicted class. `target_map` is what they were to look like, map_l1 and `iou` (thresholds at own means)
    their distance and overlap; `plausible` says whether that deceives: iou above 1/2 or map_l1 within the
    interpreter's own noise, where there is anything to see. benign_l1 is the distance of `maps` to the benign maps.
    Where an interpreter draws, distances are means over several draws, of which the attack has seen none, and `maps`
    and benign ones are by the first. success_8bit is the success once an 8-bit file holds the image.
    """

    ids: tuple[str, ...]
    images: Images
    adversarial: Images
    maps: Maps
    benign_maps: Maps
    labels: Labels
    target: Labels
    target_map: Maps
    predicted: Labels
    success: Flags
    success_8bit: Flags
    confidence: Row  # p of the target class
    map_l1: Row
    iou: Row
    plausible: Flags
    benign_l1: Row
    linf: Row

    def table(self) -> pa.Table:
        """One row per image: its id, classes, successes, whether its map is plausible, and the distances."""
        return pa.table(
            {
                "id": list(self.ids),
                "class_benign": self.labels.tolist(),
                "class_target": self.target.tolist(),
                "class_predicted": self.predicted.tolist(),
                "success": self.success.tolist(),
                "success_8bit": self.success_8bit.tolist(),
                "plausible": self.plausible.tolist(),
                **{name: pa.array(getattr(self, name).tolist(), from_pandas=True) for name in COLUMNS},
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write a folder that is whole or not there, and return its path; UnderfireError if it holds anything already.

        benign/ID.png, attacked/ID.png      8 bits; what `underfire evaluate --benign … --attacked …` takes
        maps/ID.png, benign-maps/ID.png     in colours, as large as the images
        maps.npy, benign-maps.npy           float32 (N, rows, columns), in the order of the table
        table.parquet, table.csv
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UnderfireError(f"{folder} is there already and not empty; give another folder.")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        except OSError as problem:
            raise UnderfireError(f"{folder.parent} cannot be written to: {problem.strerror}.") from problem
        try:
            self._write(temporary)
            temporary.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
        except OSError as problem:
            raise UnderfireError(f"{folder} cannot be written: {problem.strerror}.") from problem
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        height, width = self.images.shape[2:]
        for name, images in (("benign", self.images), ("attacked", self.adversarial)):
            self._write_pictures(folder / name, lambda i, of=images: _pixels(of[i : i + 1])[0])  # type: ignore[misc]
        for name, maps in (("maps", self.maps), ("benign-maps", self.benign_maps)):
            values = maps.float().cpu().numpy()
            np.save(folder / f"{name}.npy", values)
            self._write_pictures(folder / name, lambda i, of=values: _heat(of[i], (width, height)))  # type: ignore[misc]
        pq.write_table(self.table(), folder / f"{TABLE}.parquet")
        pyarrow.csv.write_csv(self.table(), folder / f"{TABLE}.csv")

    def _write_pictures(self, folder: Path, picture: Callable[[int], npt.NDArray[np.uint8]]) -> None:
        for i, id in enumerate(self.ids):
            path = folder / _file_of(id)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i)).save(path)

    def plot(self, first: int = SHOWN) -> "Figure":
        """A matplotlib figure of the first images: each benign and attacked, beside the map that it shows."""
        from matplotlib.figure import Figure

        count = min(first, len(self.ids))
        figure = Figure(figsize=(8, 2.2 * count), layout="constrained")
        panels = figure.subplots(count, 4, squeeze=False)
        benign, attacked = (_pixels(images[:count]) for images in (self.images, self.adversarial))
        maps = [each[:count].float().cpu().numpy() for each in (self.benign_maps, self.maps)]
        for i, row in enumerate(panels):
            fooled = "fooled" if self.success[i] else "not fooled"
            titles = (f"{self.ids[i]}: class {self.labels[i]}", "its map", f"class {self.predicted[i]}, {fooled}")
            shown = (benign[i], maps[0][i], attacked[i], maps[1][i])
            for axes, title, values in zip(row, (*titles, f"its map, ΔL1 {self.map_l1[i]:.3f}"), shown, strict=True):
                axes.imshow(values, cmap="inferno", vmin=0, vmax=1)
                axes.set_title(title.replace("$", r"\$"), fontsize=8)
                axes.set_axis_off()
        return figure


def _pixels(images: Images) -> npt.NDArray[np.uint8]:
    """What an 8-bit file holds of the images, NHW3."""
    pixels: npt.NDArray[np.uint8] = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _heat(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A map in colours, in so many pixels across and down."""
    import matplotlib

    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    colours: npt.NDArray[np.uint8] = matplotlib.colormaps["inferno"](smooth, bytes=True)[..., :3]
    return colours


def _file_of(id: str) -> Path:
    """Where the picture of an image lies: in its folders, whatever its name is made of."""
    parts = [quote(part, safe=" +,;=@()[]") for part in id.split("/")]
    return Path(*(part if part.strip(".") else f"%{part}" for part in parts[:-1]), f"{parts[-1]}.png")
