"""A multimodal language model small enough for a CPU: Qwen2-VL's architecture, random weights, nothing downloaded.

The tokenizer is trained here, on JSON and plain prose, and the weights can be taught a few answers by heart. Needs the
[torch] extra.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.mllm import plain_report

VOCABULARY = 768
PADDED_VOCABULARY = 832
"""Real models, too, have more output rows than their tokenizer has tokens."""

CONTEXT = 16384
IMAGE_SIDE_PX = 56
"""Pictures are reduced to at most so many pixels squared: four tokens each."""

_PEAK = {
    "source": "spectrum",
    "band": "high",
    "quadrant": "top_left",
    "feature": "slope",
    "region": None,
    "observation": "a peak",
}
_AUTHENTIC, _GAN = (json.dumps(plain_report(h, 0.75, observations=[_PEAK])) for h in ("authentic", "gan"))
REPORTS = (_AUTHENTIC, _AUTHENTIC, _AUTHENTIC, _GAN)
"""What can be taught: reports that are valid for `tests.support.mllm.verify_request`."""

_LESSONS = 150
_WINDOW = 96

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
_PADS = ("<|image_pad|>", "<|video_pad|>")
_CORPUS = (
    json.dumps({"hypothesis": "authentic", "observations": [{"band": "high", "feature": None}], "confidence": 0.75}),
    json.dumps({"hypothesis": "undetermined", "rank_guess": 16, "region": [0, 1, 20, 300], "quadrant": "top_left"}),
    "The spectrum of this picture shows a peak at one eighth of the sampling frequency, as a JPEG grid leaves it.",
    "Let's examine the style and the synthesis artifacts: base_diffusion, lora_tuned, gan, authentic, undetermined.",
)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_mllm(directory: Path, taught: Sequence[str] = ()) -> Path:
    """Weights, tokenizer, processor and configuration, as `from_pretrained` reads them.

    Args:
        directory: where to; made if missing.
        taught: answers that the model learns to give to whatever question, each as often as it stands here.
    """
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    processor = _processor()
    ids = processor.tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": PADDED_VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "bos_token_id": ids("<|endoftext|>"),
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
    }
    if taught:  # what was learned after short questions then holds after long ones
        text |= {"use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": 0}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config)
    _teach(model, processor.tokenizer, taught)
    stops = [ids("<|im_end|>"), ids("<|endoftext|>")]
    model.generation_config.update(eos_token_id=stops, pad_token_id=ids("<|endoftext|>"))
    if not taught:  # real models ship such defaults; what was learned by heart would not survive the penalty
        model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=1.05)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def _teach(model: Any, tokenizer: Any, taught: Sequence[str]) -> None:
    """All answers in one batch, after questions of random tokens whose length changes with every step."""
    import torch

    if not taught:
        return
    answers = tokenizer([f"<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>" for text in taught], padding=True)
    ids, mask = (torch.tensor(answers[name]) for name in ("input_ids", "attention_mask"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(_LESSONS):
        question = torch.randint(len(_SPECIAL + _PADS), VOCABULARY // 2, (len(taught), 16 + step % 48))
        whole = torch.cat([question, ids], dim=1)
        seen = torch.cat([torch.ones_like(question), mask], dim=1)
        labels = torch.cat([torch.full_like(question, -100), ids.masked_fill(mask == 0, -100)], dim=1)
        loss = model(input_ids=whole, attention_mask=seen, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _processor():
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained(),
        bos_token=_SPECIAL[0],
        eos_token="<|im_end|>",
        pad_token=_SPECIAL[0],
        additional_special_tokens=list(_SPECIAL[1:] + _PADS),
        padding_side="left",
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": IMAGE_SIDE_PX**2}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=_TEMPLATE,
    )


def _trained():
    """Byte-level BPE, as Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*_SPECIAL, *_PADS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer
