"""The eight symmetries of the square in NumPy, image by image."""

import numpy as np


def turned_by_numpy(images: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """`turned`, picture by picture."""
    pictures = []
    for image, element in zip(images, elements, strict=True):
        picture = np.rot90(image, element % 4)
        pictures.append(picture[:, ::-1] if element >= 4 else picture)
    return np.stack(pictures)
