"""A folder of PNG or JPEG files as images; its subfolders are the classes."""

import pathlib

import numpy as np

from jaxdiff.app.errors import DataError
from jaxdiff.files import brief

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("L", "RGB")


def read_folder(path: pathlib.Path):
    """Images (n, H, W, C) of bytes, the class of each (None without subfolders), and notes.

    The files are sorted by name. Files with other endings are left out, and a note counts them.

    Raises:
      DataError: Pillow is missing; the folder has no images, or images both in itself and in subfolders; an image
        cannot be read; or two differ in size or mode.
    """
    here, other = _files(path)
    folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    below = {folder.name: _files(folder) for folder in folders}
    other += [one for _, more in below.values() for one in more]
    labelled = [(file, name) for name, (files, _) in below.items() for file in files]
    if here and labelled:
        raise DataError(
            f"{path} has images, such as {here[0].name}, and subfolders with images, such as {labelled[0][1]}: put all "
            f"images into subfolders, one for each class, or none."
        )
    if not here and not labelled:
        raise DataError(f"{path} has no {', '.join(SUFFIXES)} files, nor have its subfolders: put the images into it.")
    empty = [name for name, (files, _) in below.items() if not files]
    notes = [f"{len(other)} file(s) that are no PNG or JPEG are left out, first {other[0].name}."] if other else []
    notes += [f"{len(empty)} subfolder(s) without images are left out, first {empty[0]}."] if empty else []
    images = _read_all(here or [file for file, _ in labelled])
    return images, None if here else [name for _, name in labelled], tuple(notes)


def _files(folder):
    """The images in a folder, sorted, and its other files; hidden files are neither."""
    files = sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    images = [one for one in files if one.suffix.lower() in SUFFIXES]
    return images, [one for one in files if one.suffix.lower() not in SUFFIXES]


def _read_all(files):
    """The images (n, H, W, C) of files that all have the size and mode of the first."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(f"{files[0]} is read by Pillow, which is missing: pip install 'jaxdiff[data]'.") from error
    first, mode = _pixels(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for i, file in enumerate(files):
        pixels, its = _pixels(file)
        if pixels.shape[:2] != first.shape[:2]:
            (h, w), (height, width) = first.shape[:2], pixels.shape[:2]
            raise DataError(
                f"{files[0]} is {w}x{h} pixels and {file} is {width}x{height}: bring all images to one size."
            )
        if its != mode:
            raise DataError(
                f"{files[0]} has mode {mode} and {file} has mode {its}: convert all to one, with Pillow by "
                f"Image.open(file).convert('RGB').save(file)."
            )
        images[i] = pixels
    return images


def _pixels(file):
    """The pixels (H, W, C) of a file and its mode. Raises DataError if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no readable image ({brief(error)}): replace or remove it.") from error
    if mode not in MODES:
        raise DataError(
            f"{file} has mode {mode}, and images are read in the modes {' and '.join(MODES)}: convert it, with Pillow "
            f"by Image.open(file).convert('RGB').save(file)."
        )
    return pixels[..., None] if mode == "L" else pixels, mode
