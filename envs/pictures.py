"""Pictures of environments: drawings of the plane and of grids, and a window that shows any picture."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = 360
"""Width and height of drawings, pixels."""
_SHARPNESS = 2  # drawn larger and scaled down, so that lines are smooth
BACKGROUND, LINES, GOAL, AGENT = "white", "#d0d0d0", "#009e73", "#0072b2"  # safe for colour-blind readers

Position = tuple[float, float]


class Plane:
    """A drawing of a square part of the plane.

    Args:
        extent: Least and greatest coordinate shown, along both axes.
    """

    def __init__(self, extent: tuple[float, float]) -> None:
        self._low, high = extent
        self._scale = SIZE * _SHARPNESS / (high - self._low)
        self._image = Image.new("RGB", (SIZE * _SHARPNESS, SIZE * _SHARPNESS), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image)

    def disk(self, centre: Position, radius: float, colour: str, *, filled: bool = True) -> None:
        """Draw a disk, or a circle."""
        (x, y), r = self._pixel(centre), radius * self._scale
        box = (x - r, y - r, x + r, y + r)
        self._draw.ellipse(box, fill=colour if filled else None, outline=colour, width=2 * _SHARPNESS)

    def square(self, centre: Position, side: float, colour: str) -> None:
        """Draw a filled square."""
        (x, y), r = self._pixel(centre), side * self._scale / 2
        self._draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)

    def line(self, start: Position, end: Position, colour: str, width: int = 1) -> None:
        """Draw a line of a width in pixels."""
        self._draw.line((*self._pixel(start), *self._pixel(end)), fill=colour, width=width * _SHARPNESS)

    def pixels(self) -> np.ndarray:
        """The drawing, uint8 [height, width, 3]."""
        return np.asarray(self._image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

    def _pixel(self, position: Position) -> Position:
        x, y = position
        return (x - self._low) * self._scale, SIZE * _SHARPNESS - (y - self._low) * self._scale


class Window:
    """A window that shows one picture after another, by pygame.

    Args:
        title: Title of the window.
        fps: Greatest number of pictures per second.

    Raises:
        RuntimeError: if pygame is missing, or there is no screen.
    """

    def __init__(self, title: str, fps: int) -> None:
        try:
            import pygame  # noqa: PLC0415  # wanted by nobody who looks at nothing
        except ImportError as error:
            raise RuntimeError('render_mode "human" needs pygame: pip install pygame') from error
        self._pygame: Any = pygame
        self._title, self._fps = title, fps
        self._screen: Any = None
        self._clock = pygame.time.Clock()

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 [height, width, 3], for its share of a second."""
        pygame = self._pygame
        height, width = picture.shape[:2]
        if self._screen is None:
            try:
                pygame.display.init()
                pygame.display.set_caption(self._title)
                self._screen = pygame.display.set_mode((width, height))
            except pygame.error as error:
                raise RuntimeError(f"no window can be opened ({error}); use render_mode rgb_array") from error
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self._screen.blit(surface, (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window, if one was opened."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None
