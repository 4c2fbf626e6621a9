"""Photos of requests, decoded by processes under the limits of the nightly run."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from jobs.errors import RetryableError
from jobs.failures import Reason
from jobs.images.decode import DecodeFault, DecodeLimits, prepare_image
from jobs.images.decode_pool import DecodePool
from jobs.images.geometry import Geometry
from jobs.serve.requests import NotNowError, UnfitQuestionError
from jobs.settings import Settings


class PhotoDecoder:
    """Decodes one photo at a time for each of its processes; the others wait."""

    def __init__(self, pool: DecodePool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        # Two for each process, so that none is idle while a photo travels.
        self._threads = ThreadPoolExecutor(2 * settings.compute.decode_processes, "decode")

    async def prepare(self, content: bytes, geometry: Geometry, largest_side: int) -> np.ndarray:
        """Turn the bytes of a photo into uint8 pixels [side, side, 3] for a model.

        ``largest_side`` is the longest resize target of all models in use, as the nightly run takes it.

        Raises:
            UnfitQuestionError: these bytes are no photo, or one that the limits refuse.
            NotNowError: decoding processes are lost, whatever they decode.
        """
        limits = DecodeLimits(
            self._settings.images.max_pixels, self._settings.images.min_side_pixels, target_side=2 * largest_side
        )
        decode = partial(prepare_image, limits=limits, geometries=(geometry,))
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._pool.decode, decode, [content])
        try:
            (prepared,) = await work
        except RetryableError as error:
            raise NotNowError(Reason.DECODER_LOST, str(error)) from None
        if isinstance(prepared, DecodeFault) and prepared.reason is Reason.DECODER_LOST:
            raise NotNowError(prepared.reason, prepared.detail)
        if isinstance(prepared, DecodeFault):
            raise UnfitQuestionError(prepared.reason, prepared.detail)
        pixels: np.ndarray = prepared.inputs[0]
        return pixels

    def close(self) -> None:
        """End the threads once they are through."""
        self._threads.shutdown()
