"""How long work of the recipes shows itself: a bar over episodes or frames with rate and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffpolicy.training.logs import Progress

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.rollout.faults import Dropped

__all__ = ["EpisodeProgress", "FilmProgress"]

_SPOKEN = 3  # dropped episodes that get a line of their own


class EpisodeProgress(Progress):
    """A progress bar over episodes that shows the share of successes, from the first one on.

    Before it, nothing tells an environment that reports none.
    """

    def __init__(self, episodes: int, title: str) -> None:
        super().__init__(episodes, metric="success", title=title, smooth=0.0)
        self._done = self._finished = self._successes = self._noted = 0

    def __call__(self, episode: Episode) -> None:  # type: ignore[override]
        """Count one finished episode."""
        self._done += 1
        self._finished += 1
        self._successes += episode.success
        shown = {"success": self._successes / self._finished} if self._successes else {}
        super().__call__(self._done - 1, shown)

    def dropped(self, episode: Dropped) -> None:
        """Count one that the environment broke, as done but not as finished; the first few are named."""
        self.note(episode)
        self._done += 1
        super().__call__(self._done - 1, {})

    def note(self, episode: Dropped) -> None:
        """Name one that the environment broke and that another takes the place of."""
        self._noted += 1
        if self._noted <= _SPOKEN:
            more = "; further ones are only counted" if self._noted == _SPOKEN else ""
            self._console.print(f"dropped: {episode}{more}", highlight=False, markup=False, soft_wrap=True)


class FilmProgress(Progress):
    """A progress bar over the frames of several clips, each of which may end early.

    Args:
        clips: how many are filmed.
        longest: frames of a clip at most.
    """

    def __init__(self, clips: int, longest: int) -> None:
        super().__init__(clips * longest, title="filming", smooth=0.0)
        self._clips, self._longest, self._frames = clips, longest, 0

    def shot(self) -> None:
        """Count a frame."""
        self._frames += 1
        super().__call__(self._frames - 1, {})

    def cut(self) -> None:
        """A clip is over: what it did not take of its longest will not come."""
        self._clips -= 1
        self.steps = self._frames + self._clips * self._longest
        super().__call__(self._frames - 1, {})
