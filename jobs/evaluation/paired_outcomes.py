"""The same questions asked of two models."""

import numpy as np

from jobs.evaluation.evaluation_record import PairedOutcomes


def pair_outcomes(candidate_is_right: np.ndarray, champion_is_right: np.ndarray) -> PairedOutcomes:
    """Count how often both, one alone, or none was right; bool [n] each, in the same order of questions."""
    return PairedOutcomes(
        both=int((candidate_is_right & champion_is_right).sum()),
        only_candidate=int((candidate_is_right & ~champion_is_right).sum()),
        only_champion=int((~candidate_is_right & champion_is_right).sum()),
        neither=int((~candidate_is_right & ~champion_is_right).sum()),
    )
