"""Prompts in, thumbnails in a data lake out: read JSONL, generate, resize, write Parquet, all of it streaming.

    python examples/ray_pipeline.py examples/prompts.jsonl thumbnails/

A line of the file holds the parameters of one image, at least {"prompt": "..."}; every other column is passed on. The
output may be a URL (s3://, gs://). On a cluster submit it as a job, and ask for more --actors. WAVESPEED_API_KEY must
be set where the actors run; for a try without one see docs/ray.md.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

import ray
from PIL import Image

from wavespeed_qwen_async.integrations.ray import Generate


def thumbnail(row: dict[str, Any], side: int) -> dict[str, Any]:
    """Made smaller, where there is an image; rows that failed pass through with their error."""
    if row["bytes"] is not None:
        picture = Image.open(io.BytesIO(row.pop("bytes")))
        picture.thumbnail((side, side))
        small = io.BytesIO()
        picture.convert("RGB").save(small, "JPEG")
        row["thumbnail"] = small.getvalue()
    else:
        row["thumbnail"] = row.pop("bytes")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts")
    parser.add_argument("output")
    parser.add_argument("--tier", default="silver")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--block", type=int, default=32, help="images between two writes: what a stream is made of")
    options = parser.parse_args()

    ray.init()
    ray.data.DataContext.get_current().enable_progress_bars = False
    (
        ray.data.read_json(options.prompts)
        .repartition(target_num_rows_per_block=options.block)
        .map_batches(
            Generate,
            fn_constructor_kwargs={"session": {"tier": options.tier}, "workers": options.actors},
            # Batches that an actor has under way: enough to fill the account's places.
            compute=ray.data.ActorPoolStrategy(
                size=options.actors, max_tasks_in_flight_per_actor=16, max_concurrent_calls_per_actor=16
            ),
            batch_size=options.block,
            # An actor that is lost ends the pipeline: Ray would run its rows again, and they would be paid again.
            max_restarts=0,
            max_task_retries=0,
        )
        .map(thumbnail, fn_kwargs={"side": options.side})
        .write_parquet(options.output)
    )


if __name__ == "__main__":
    main()
