"""How long work of the recipes shows itself: a bar over episodes with rate, time left and success so far."""

from __future__ import annotations

from diffpolicy.data.episode import Episode
from diffpolicy.training.logs import Progress

__all__ = ["EpisodeProgress"]


class EpisodeProgress(Progress):
    """A progress bar over episodes that shows the share of successes."""

    def __init__(self, episodes: int, title: str) -> None:
        super().__init__(episodes, metric="success", title=title, smooth=0.0)
        self._done = self._successes = 0

    def __call__(self, episode: Episode) -> None:  # type: ignore[override]
        """Count one finished episode."""
        self._done += 1
        self._successes += episode.success
        super().__call__(self._done - 1, {"success": self._successes / self._done})
