"""The service ~/describe: what the encoder makes of names, for ~/features."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rclpy.node import Node

from llmseg_ros.class_rules import Given
from llmseg_ros.own_lists import NamesRefused, OwnList
from llmseg_ros.ros.calls import MOST_SECONDS, CallQueue, Refused, late
from llmseg_ros.ros.pipeline import FramePipeline
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.srv import DescribeNames
from llmseg_ros.vocabulary import beyond_embeddings, fixed_embeddings

MOST_NAMES = 100  # in a call; those of 80 templates each take a CPU minutes when they are new


class DescribeService:
    """Answer `~/describe`.

    Args:
        node: whose service it is.
        updates: the one thread that describes class lists.
        pipeline: returns the node's, None while it has none.
    """

    def __init__(
        self,
        node: Node,
        updates: ThreadPoolExecutor,
        pipeline: Callable[[], FramePipeline | None],
    ) -> None:
        self._updates = updates
        self._pipeline = pipeline
        self._queue = CallQueue(node, DescribeNames, '~/describe', self._answer)
        self.stop = self._queue.stop

    def _answer(self, request: DescribeNames.Request, deadline: float) -> DescribeNames.Response:
        segmenter = configured(self._pipeline()).segmenter
        own = describe_in_time(self._updates, segmenter, request.names, (), deadline)
        fusion = own.config.fusion
        rows_sd, counts = fixed_embeddings(own.vocabulary, fusion, request.subclasses)
        beyond = beyond_embeddings(own.vocabulary, fusion)
        response = DescribeNames.Response(
            success=True,
            message='; '.join((*own.notes, *beyond)),
            encoder=segmenter.encoder.name,
            names=[item.name for item in own.vocabulary.classes],
            rows=counts,
            dimension=rows_sd.shape[1],
        )
        values = np.ascontiguousarray(rows_sd.float().cpu().numpy())
        response.embeddings.frombytes(values.view(np.uint8))
        return response


def configured(pipeline: FramePipeline | None) -> FramePipeline:
    """Return the node's pipeline.

    Raises:
        Refused: there is none.
    """
    if pipeline is None:
        raise Refused('the node is not configured, so it has no model to ask: configure it first')
    return pipeline


def describe_in_time(
    updates: ThreadPoolExecutor,
    segmenter: Segmenter,
    names: Sequence[str],
    rules: Given,
    deadline: float,
) -> OwnList:
    """Return a class list described, the one in force for no names and no rules.

    Args:
        updates: the one thread that describes class lists.
        segmenter: of the node.
        names: of classes; none: those in force.
        rules: of these classes.
        deadline: by time.monotonic.

    Raises:
        Refused: a name or a rule can't be used, or describing takes longer.
    """
    if len(names) > MOST_NAMES:
        raise Refused(f'{len(names)} names are more than the {MOST_NAMES} of a call: split them up')
    if not names and not rules:
        return OwnList(segmenter.vocabulary, segmenter.config)
    names = names or [item.name for item in segmenter.vocabulary.classes]
    work = updates.submit(segmenter.describe, names, rules)
    try:
        return work.result(max(0.0, deadline - time.monotonic()))
    except NamesRefused as error:
        raise Refused(str(error)) from error
    except concurrent.futures.TimeoutError:
        if work.cancel():  # behind another list
            raise late() from None
        raise Refused(
            f'to describe {len(names)} names takes more than {MOST_SECONDS:g} s and goes on: '
            'call again'
        ) from None
