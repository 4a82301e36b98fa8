"""What would a policy have brought back? Played against a world in virtual time, without database or network."""

from worker.simulate.play import Decide, NoEnd, Played, Try, play

__all__ = ["Decide", "NoEnd", "Played", "Try", "play"]
