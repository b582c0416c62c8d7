"""Makes a folder that vLLM can load out of the tests' GGUF file. Run by vLLM's own Python, which has what it needs.

    python engine_model.py FILE FOLDER

The model cannot think. So that a parser of thinking has something to find, its tokenizer gets the two marks, and its
template opens a thinking where `thinking` is on: what comes then is thinking, as long as the model closes it not.
"""

# mypy: ignore-errors

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_NUMBERS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
}  # fmt: skip
_OPENS = "{%- if add_generation_prompt and thinking is defined and thinking %}{{- '<think>\\n' }}{%- endif %}"


def _name(name: str) -> str:
    base, kind = name.rsplit(".", 1)
    layer = re.match(r"blk\.(\d+)\.(\w+)", base)
    return f"model.layers.{layer[1]}.{_PARTS[layer[2]]}.{kind}" if layer else f"{_ENDS[base]}.{kind}"


def main(file: Path, folder: Path) -> None:
    import numpy
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    reader = GGUFReader(file)

    def said(name: str) -> object:
        return reader.fields[name].contents()

    tensors = {}
    for tensor in reader.tensors:
        plain = numpy.array(dequantize(tensor.data, tensor.tensor_type), dtype=numpy.float32)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        tensors[_name(tensor.name)] = torch.from_numpy(plain).reshape(shape).to(torch.bfloat16).contiguous()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template += _OPENS
    tokenizer.save_pretrained(folder)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            more = tensors[name].new_zeros(max(0, len(tokenizer) - tensors[name].shape[0]), tensors[name].shape[1])
            tensors[name] = torch.cat([tensors[name], more])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    kind = said("general.architecture")
    config = {name: said(f"{kind}.{there}") for name, there in _NUMBERS.items()} | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "torch_dtype": "bfloat16",
        "bos_token_id": said("tokenizer.ggml.bos_token_id"),
        "eos_token_id": said("tokenizer.ggml.eos_token_id"),
    }
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
