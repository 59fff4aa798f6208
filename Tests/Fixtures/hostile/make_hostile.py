#!/usr/bin/env python3
"""Writes files that must be rejected: READER/KIND/NAME, where KIND is the error that READER must throw."""
import json
import pathlib
import struct

root = pathlib.Path(__file__).parent


def write(place, content):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def tensors(place, header, data=8, length=None):
    header = header if isinstance(header, bytes) else header.encode()
    length = len(header) if length is None else length
    write(f"safetensors/{place}.safetensors", struct.pack("<Q", length) + header + bytes(data))


def entry(name="a", dtype='"F32"', shape="[2]", offsets="[0,8]", more=""):
    return f'"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}'


good = "{" + entry() + "}"
accent = "\u0301"

# The head of the file.
write("safetensors/header/empty.safetensors", b"")
write("safetensors/header/seven_bytes.safetensors", bytes(7))
tensors("header/length_zero", good, length=0)
tensors("header/length_beyond_file", good, length=200)
tensors("header/length_2_to_40", good, length=1 << 40)
tensors("header/length_2_to_63", good, length=1 << 63)
tensors("header/length_all_ones", good, length=(1 << 64) - 1)
tensors("header/list", "[]")
tensors("header/byte_order_mark", "\ufeff" + good)
tensors("header/text_after_end", good + "x")
tensors("header/nul_after_end", good + "\0")
tensors("header/not_utf8", b'{"\xff":0}')
tensors("header/surrogate_in_utf8", b'{"\xed\xa0\x80":0}')
tensors("header/overlong_slash", b'{"\xc0\xaf":0}')
tensors("header/lone_surrogate", r'{"\ud800":0}')
tensors("header/swapped_surrogates", r'{"\udc00\ud800":0}')
tensors("header/deep", '{"a":' + "[" * 4000)
tensors("header/twice", "{" + entry() + "," + entry(shape="[0]", offsets="[8,8]") + "}")
tensors("header/twice_by_escape", "{" + entry() + "," + entry("\\u0061", shape="[0]", offsets="[8,8]") + "}")
tensors("header/twice_by_accent", "{" + entry("\u00e9") + "," + entry("e" + accent, shape="[0]", offsets="[8,8]") + "}")
tensors("header/dtype_twice", '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
tensors("header/metadata_number", '{"__metadata__":{"x":1},' + entry() + "}")
tensors("header/metadata_list", '{"__metadata__":["x"],' + entry() + "}")
# Normalizing the order of the marks takes quadratic time whenever the name is hashed.
tensors("header/marks", "{" + entry("a" + "\u0300\u0323" * 1000) + "}")
tensors("header/marks_without_class", "{" + entry("a" + "\u0f73" * 1000) + "}")

# A tensor's entry.
tensors("tensor/number", '{"a":1}')
tensors("tensor/no_dtype", '{"a":{"shape":[2],"data_offsets":[0,8]}}')
tensors("tensor/no_shape", '{"a":{"dtype":"F32","data_offsets":[0,8]}}')
tensors("tensor/no_offsets", '{"a":{"dtype":"F32","shape":[2]}}')
tensors("tensor/unknown_key", "{" + entry(more=',"strides":[1]') + "}")
tensors("tensor/line_end_in_name", "{" + entry("a\\nError: b\\u001b[2J", more=',"x":0') + "}")
tensors("tensor/direction_in_name", "{" + entry("a\u202eb", more=',"x":0') + "}")
tensors("tensor/long_name", "{" + entry("a" * 9000, more=',"x":0') + "}")
tensors("tensor/dtype_number", "{" + entry(dtype="4") + "}")
tensors("tensor/dtype_unknown", "{" + entry(dtype='"F8_E8M0"', shape="[8]") + "}")
tensors("tensor/dtype_lower_case", "{" + entry(dtype='"f32"') + "}")
tensors("tensor/dtype_of_other_size", "{" + entry(dtype='"BF16"') + "}")
tensors("tensor/negative_dimension", "{" + entry(shape="[-2]") + "}")
tensors("tensor/negative_pair", "{" + entry(shape="[-1,-2]") + "}")
tensors("tensor/fraction", "{" + entry(shape="[2.0]") + "}")
tensors("tensor/dimension_2_to_64", "{" + entry(shape="[18446744073709551616]") + "}")
tensors("tensor/product_2_to_64", "{" + entry(shape="[4294967296,4294967296]", offsets="[0,0]") + "}")
tensors("tensor/product_wraps", "{" + entry(shape="[4611686018427387905,4]") + "}")
tensors("tensor/zero_hides_overflow", "{" + entry(shape="[0,4611686018427387904,8]", offsets="[0,0]") + "}", 0)
tensors("tensor/many_dimensions", "{" + entry(shape="[" + "1," * 4000 + "3]") + "}")
tensors("tensor/offsets_reversed", "{" + entry(offsets="[8,0]") + "}")
tensors("tensor/offset_negative", "{" + entry(offsets="[-8,0]") + "}")
tensors("tensor/offsets_three", "{" + entry(offsets="[0,4,8]") + "}")
tensors("tensor/offset_2_to_63", "{" + entry(offsets="[9223372036854775807,9223372036854775808]") + "}")
tensors("tensor/offsets_too_far_apart", "{" + entry(offsets="[0,9223372036854775807]") + "}")

# The tensors together.
tensors("layout/cut_short", good, 7)
tensors("layout/data_left_over", good, 9)
tensors("layout/no_tensors", "{}")
tensors("layout/hole", "{" + entry(shape="[1]", offsets="[4,8]") + "}")
tensors("layout/overlap", "{" + entry() + "," + entry("b", shape="[1]", offsets="[4,8]") + "}")
tensors("layout/same_bytes", "{" + entry() + "," + entry("b") + "}")
tensors("layout/empty_one_inside", "{" + entry() + "," + entry("b", shape="[0]", offsets="[4,4]") + "}")
tensors("layout/empty_one_beyond", "{" + entry() + "," + entry("b", shape="[0]", offsets="[16,16]") + "}")
tensors("layout/offsets_at_the_end_of_integers", "{" + entry(
    offsets="[9223372036854775799,9223372036854775807]") + "}")


# An index of shards.
def index(name, value):
    write(f"index/header/{name}.index.json", json.dumps(value, ensure_ascii=False))


index("list", [])
index("no_map", {"metadata": {"total_size": 8}})
index("map_is_a_list", {"weight_map": ["x.safetensors"]})
for name, file in {
    "number": 1, "empty": "", "here": ".", "up": "..", "up_and_away": "../x.safetensors",
    "absolute": "/etc/passwd", "nul": "x.safetensors\0",
    # A slash with a combining accent is one character, which does not equal a slash if characters are compared.
    "slash_with_accent": f"../{accent}x.safetensors", "nul_with_accent": f"x.safetensors\0{accent}",
}.items():
    index(name, {"weight_map": {"a": file}})
write("index/header/twice.index.json", '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
write("index/header/cut_short.index.json", '{"weight_map": {"a": "x.safe')


# Configurations.
def config(place, class_name="UNet2DModel", **values):
    write(f"config/{place}_config.json", json.dumps({"_class_name": class_name, **values}, ensure_ascii=False))


level = {"block_out_channels": [32], "norm_num_groups": 1}
unet = level | {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
coder = level | {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
most = (1 << 63) - 1
for key, value in {
    "layers_per_block": 10**9, "in_channels": 1 << 40, "out_channels": most, "block_out_channels": [1 << 40],
    "norm_num_groups": 0, "attention_head_dim": 0, "attn_norm_num_groups": -1, "time_embedding_dim": 1 << 62,
    "freq_shift": most, "sample_size": most, "dropout": 1e308, "norm_eps": 0, "mid_block_scale_factor": 0,
}.items():
    config(f"invalidValue/unet_{key}", **unet | {key: value})
config("invalidValue/unet_width_times_four", **unet | {"block_out_channels": [1 << 62]})
config("invalidValue/unet_size_of_sides", **unet | {"sample_size": [8, most - 7]})
config("invalidValue/unet_levels", **{
    key: value * 2000 for key, value in unet.items() if key != "norm_num_groups"}, norm_num_groups=1)
config("invalidValue/unet_no_levels", block_out_channels=[], down_block_types=[], up_block_types=[])
config("invalidValue/unet_lists_differ", **unet | {"up_block_types": []})
config("wrongType/unet_fraction", **unet | {"layers_per_block": 2.0})
config("wrongType/unet_beyond_integers", **unet | {"layers_per_block": 1 << 63})
config("wrongType/unet_null_channels", **unet | {"in_channels": None})
config("wrongType/unet_text", **unet | {"norm_eps": "1e-5"})
config("unknownKey/line_end", **unet | {"in_channel\nError: s": 3})
config("unknownKey/long", **unet | {"x" * 5000: 3})
config("invalidValue/class_embedding", **unet | {"num_class_embeds": most})
for name in ["AutoencoderKL", "VQModel"]:
    for key, value in {
        "layers_per_block": 10**9, "latent_channels": 1 << 62, "block_out_channels": [1 << 40],
        "sample_size": most, "scaling_factor": 0,
    }.items():
        config(f"invalidValue/{name.lower()}_{key}", name, **coder | {key: value})
config("invalidValue/vqmodel_codes", "VQModel", **coder | {"num_vq_embeddings": 1 << 40})
config("invalidValue/vqmodel_width", "VQModel", **coder | {"vq_embed_dim": most})
for key, value in {
    "num_train_timesteps": 10**9, "steps_offset": most, "beta_start": -1e300, "beta_end": 1e300,
    "trained_betas": [0.1], "clip_sample_range": -1,
}.items():
    config(f"invalidValue/scheduler_{key}", "DDIMScheduler", **{key: value})
write("config/wrongType/list_config.json", "[]")
write("config/syntax/deep_config.json", '{"a":' * 5000)
write("config/syntax/number_config.json", '{"_class_name": "UNet2DModel", "dropout": 1e999}')
write("config/wrongType/nan_config.json", '{"_class_name": "UNet2DModel", "dropout": NaN}')
write("config/syntax/twice_config.json", '{"dropout": 0, "dropout": 0.1}')
