// Convolution on oneDNN. Activations are plain NHWC, so a step only reorders weights and their gradients, whose layout
// oneDNN chooses. Primitives, memory objects and arguments are created with the plan; a call only sets pointers.
#ifdef DISTTRAIN_ONEDNN

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ck_parallel.h"
#include "conv_pack.h"
#include "conv_plan.h"
#include "onednn_call.h"

extern "C" void omp_set_num_threads(int);  // from libgomp

namespace {

using dnnl::memory;
using dims = memory::dims;
using tag = memory::format_tag;
using type = memory::data_type;

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// A convolution in oneDNN's terms: dimensions are (B, C, H, W) regardless of the layout.
struct Geometry {
    type element;
    memory::desc x, y, bias;
    dims weights, strides, before, after;
};

dnnl::convolution_forward::primitive_desc describe_forward(const Geometry &g, const memory::desc &weights,
                                                           bool hasBias,
                                                           const dnnl::primitive_attr &attributes) {
    auto kind = dnnl::prop_kind::forward_training;
    auto algorithm = dnnl::algorithm::convolution_direct;
    auto bias = hasBias ? g.bias : memory::desc();
#if DNNL_VERSION_MAJOR >= 3
    return {processor(), kind, algorithm, g.x, weights, bias, g.y, g.strides, g.before, g.after, attributes};
#else
    return {
        {kind, algorithm, g.x, weights, bias, g.y, g.strides, g.before, g.after}, attributes, processor()};
#endif
}

dnnl::convolution_backward_data::primitive_desc describe_backward_data(
    const Geometry &g, const memory::desc &weights, const dnnl::primitive_attr &attributes) {
    auto algorithm = dnnl::algorithm::convolution_direct;
    auto hint = describe_forward(g, weights, false, attributes);
#if DNNL_VERSION_MAJOR >= 3
    return {processor(), algorithm, g.x, weights, g.y, g.strides, g.before, g.after, hint, attributes};
#else
    return {{algorithm, g.x, weights, g.y, g.strides, g.before, g.after}, attributes, processor(), hint};
#endif
}

dnnl::convolution_backward_weights::primitive_desc describe_backward_weights(
    const Geometry &g, const memory::desc &hintWeights, bool hasBias,
    const dnnl::primitive_attr &attributes) {
    auto algorithm = dnnl::algorithm::convolution_direct;
    auto hint = describe_forward(g, hintWeights, hasBias, attributes);
    // Parameter gradients are fp32 regardless of the activation type.
    memory::desc gw(g.weights, type::f32, tag::any), gb = hasBias ? g.bias : memory::desc();
#if DNNL_VERSION_MAJOR >= 3
    return {processor(), algorithm, g.x, gw, gb, g.y, g.strides, g.before, g.after, hint, attributes};
#else
    return {{algorithm, g.x, gw, gb, g.y, g.strides, g.before, g.after}, attributes, processor(), hint};
#endif
}

/// The offsets of the weights in the layout that oneDNN chose. `turned`: O and C are exchanged and the kernel is
/// rotated by 180°.
class Layout {
  public:
    Layout() = default;
    Layout(const memory::desc &desc, bool turned) {
#if DNNL_VERSION_MAJOR >= 3
        bool blocked = desc.get_format_kind() == memory::format_kind::blocked;
        dims extent = desc.get_dims(), padded = desc.get_padded_dims(), strides = desc.get_strides();
        dims blocks = desc.get_inner_blks(), names = desc.get_inner_idxs();
        long start = desc.get_submemory_offset();
#else
        const dnnl_memory_desc_t &d = desc.data;
        const dnnl_blocking_desc_t &b = d.format_desc.blocking;
        bool blocked = d.format_kind == dnnl_blocked && d.extra.flags == 0;
        dims extent(d.dims, d.dims + d.ndims), padded(d.padded_dims, d.padded_dims + d.ndims);
        dims strides(b.strides, b.strides + d.ndims);
        dims blocks(b.inner_blks, b.inner_blks + b.inner_nblks),
            names(b.inner_idxs, b.inner_idxs + b.inner_nblks);
        long start = d.offset0;
#endif
        if (!blocked) throw dnnl::error(dnnl_unimplemented, "oneDNN chose weights of an opaque layout");
        // The blocks of an index are nested, the last one innermost; the remainder is multiplied by the stride of the
        // dimension.
        std::vector<long> place[4];
        for (int d = 0; d < 4; d++)
            for (long i = 0; i < extent[size_t(d)]; i++) {
                long rest = i, offset = 0, step = 1;
                for (size_t block = blocks.size(); block-- > 0;) {
                    if (names[block] == d) {
                        offset += rest % blocks[block] * step;
                        rest /= blocks[block];
                    }
                    step *= blocks[block];
                }
                place[d].push_back(offset + rest * strides[size_t(d)]);
            }
        output = place[turned ? 1 : 0];
        input = place[turned ? 0 : 1];
        for (long h : place[2])
            for (long w : place[3]) tap.push_back(start + h + w);
        if (turned) std::reverse(tap.begin(), tap.end());
        places = {long(output.size()), long(input.size()), long(tap.size()), output.data(),
                  input.data(),        tap.data(),         desc.get_size(),  padded != extent};
    }
    Layout(const Layout &) = delete;
    Layout &operator=(Layout &&) = default;

    const ck_weight_layout &get() const { return places; }

  private:
    std::vector<long> output, input, tap;
    ck_weight_layout places{};  // points into the vectors, whose memory moves with them
};

struct Plan : ck_conv {
    dnnl::stream stream{processor()};
    std::string name;
    Call convolution;
    int x = -1, weights = -1, bias = -1, y = -1, scratchpad = -1;  // argument indices in `convolution`
    Layout layout;                                                 // of the weights, or of their gradient
    bool turned = false;  // backward-data as a forward convolution with the kernel rotated by 180°
    size_t gradientBytes = 0, scratchpadBytes = 0, outputBytes = 0;
    int threads = ck_threads();  // number of threads for which the primitive was created

    void build();
    void run() const {
        // OpenMP's thread count is per thread, and this thread may differ from the one that created the plan.
        omp_set_num_threads(threads);
        convolution.run();
    }

  private:
    template <class Description>
    void adopt(const Description &description) {
        name = description.impl_info_str();
        scratchpadBytes = aligned(description.scratchpad_desc().get_size());
        scratch_bytes = scratchpadBytes;
    }
};

/// Whether the implementation is vectorized: oneDNN's reference loops are many times slower than im2col.
bool is_fast(const std::string &name) { return name.find("ref") == std::string::npos; }

/// A 1×1 convolution is a matrix product over all pixels, regardless of image boundaries, but oneDNN works image by
/// image. Below 64 pixels per image, as in a linear layer called with B rows, that takes 2 to 7 times as long, so all
/// pixels are folded into one row.
ck_conv_shape folded(ck_conv_shape s) {
    bool product = s.kernelH == 1 && s.kernelW == 1 && s.stride == 1 &&
                   s.padTop + s.padLeft + s.padBottom + s.padRight == 0;
    if (product && (s.H == 1 || s.W == 1 || s.H * s.W < 64)) {
        s.W *= s.B * s.H;
        s.B = s.H = 1;
    }
    return s;
}

Geometry geometry_of(const ck_conv_shape &s) {
    long B = s.B, H = s.H, W = s.W, OH = ck_conv_output_height(&s), OW = ck_conv_output_width(&s);
    type t = s.dtype == CK_BF16 ? type::bf16 : type::f32;
    return {t,
            memory::desc({B, s.C, H, W}, t, tag::nhwc),
            memory::desc({B, s.O, OH, OW}, t, tag::nhwc),
            memory::desc({s.O}, type::f32, tag::x),
            {s.O, s.C, s.kernelH, s.kernelW},
            {s.stride, s.stride},
            {s.padTop, s.padLeft},
            {s.padBottom, s.padRight}};
}

/// Backward-data of a stride-1 convolution as a forward convolution: gx = gy * weights',
/// weights'[c, o, kh, kw] = weights[o, c, KH−1−kh, KW−1−kw].
Geometry turned_geometry(const ck_conv_shape &s) {
    Geometry g = geometry_of(s);
    std::swap(g.x, g.y);
    g.weights = {s.C, s.O, s.kernelH, s.kernelW};
    g.before = {s.kernelH - 1 - s.padTop, s.kernelW - 1 - s.padLeft};
    g.after = {s.kernelH - 1 - s.padBottom, s.kernelW - 1 - s.padRight};
    return g;
}

/// Whether to use the rotated kernel. Measured on Zen 5 with oneDNN 2.6.3: it is 3 to 8 % faster in fp32 (up to twice
/// as fast for 16×16 images with 256 channels) and up to 15 % faster in bf16. The library's own backward-data is 5 %
/// faster below 8×8 and a third faster for few output channels.
bool prefers_turned(const ck_conv_shape &s) {
    return s.kernelH * s.kernelW > 1 && s.H * s.W >= 64 && s.O >= 16;
}

bool can_turn(const ck_conv_shape &s) {
    return s.stride == 1 && s.padTop < s.kernelH && s.padBottom < s.kernelH && s.padLeft < s.kernelW &&
           s.padRight < s.kernelW;
}

/// oneDNN 2.6.3's jit_bf16_1x1:avx512_core_bf16 computes wrong backward-data results if O is odd, for some numbers of
/// pixels (60, 150); its forward pass is correct.
bool is_miscomputed(const ck_conv_shape &s) {
    return s.dtype == CK_BF16 && s.kernelH * s.kernelW == 1 && s.O % 2 == 1;
}

/// Throws dnnl::error if oneDNN has no implementation.
void Plan::build() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (kind == CK_CONV_BACKWARD_DATA) {
        turned = can_turn(shape) && (prefers_turned(shape) || is_miscomputed(shape));
        if (!turned && is_miscomputed(shape))
            throw dnnl::error(dnnl_unimplemented, "1x1 bf16 backward-data of an odd number of channels");
    }
    Geometry g = turned ? turned_geometry(folded(shape)) : geometry_of(folded(shape));
    memory::desc anyWeights(g.weights, g.element, tag::any);
    outputBytes = g.y.get_size();

    if (kind == CK_CONV_BACKWARD_WEIGHTS) {
        auto d = describe_backward_weights(g, anyWeights, has_bias, attributes);
        adopt(d);
        auto gradient = d.diff_weights_desc();
        gradientBytes = aligned(gradient.get_size());
        scratch_bytes += gradientBytes + aligned(size_t(shape.O) * sizeof(float));
        convolution = Call(dnnl::convolution_backward_weights(d), stream.get());
        x = convolution.add(DNNL_ARG_SRC, d.src_desc());
        y = convolution.add(DNNL_ARG_DIFF_DST, d.diff_dst_desc());
        weights = convolution.add(DNNL_ARG_DIFF_WEIGHTS, gradient);
        if (has_bias) bias = convolution.add(DNNL_ARG_DIFF_BIAS, d.diff_bias_desc());
        scratchpad = convolution.add(DNNL_ARG_SCRATCHPAD, d.scratchpad_desc());
        layout = Layout(gradient, false);
        return;
    }

    memory::desc packed;
    if (kind == CK_CONV_FORWARD || turned) {
        if (has_addend) {
            dnnl::post_ops sum;
            sum.append_sum(1.0f);
            attributes.set_post_ops(sum);
        }
        auto d = describe_forward(g, anyWeights, has_bias, attributes);
        adopt(d);
        packed = d.weights_desc();
        convolution = Call(dnnl::convolution_forward(d), stream.get());
        x = convolution.add(DNNL_ARG_SRC, d.src_desc());
        weights = convolution.add(DNNL_ARG_WEIGHTS, packed);
        if (has_bias) bias = convolution.add(DNNL_ARG_BIAS, d.bias_desc());
        y = convolution.add(DNNL_ARG_DST, d.dst_desc());
        scratchpad = convolution.add(DNNL_ARG_SCRATCHPAD, d.scratchpad_desc());
    } else {
        auto d = describe_backward_data(g, anyWeights, attributes);
        adopt(d);
        packed = d.weights_desc();
        convolution = Call(dnnl::convolution_backward_data(d), stream.get());
        y = convolution.add(DNNL_ARG_DIFF_DST, d.diff_dst_desc());
        weights = convolution.add(DNNL_ARG_WEIGHTS, packed);
        x = convolution.add(DNNL_ARG_DIFF_SRC, d.diff_src_desc());
        scratchpad = convolution.add(DNNL_ARG_SCRATCHPAD, d.scratchpad_desc());
    }
    packed_bytes = packed.get_size();
    layout = Layout(packed, turned);
}

Plan *plan_of(ck_conv *conv) { return static_cast<Plan *>(conv); }

void destroy(ck_conv *conv) { delete plan_of(conv); }
const char *implementation(const ck_conv *conv) { return static_cast<const Plan *>(conv)->name.c_str(); }

void pack(ck_conv *conv, const void *weights, void *packed) {
    ck_pack_weights(&plan_of(conv)->layout.get(), conv->shape.weights, weights, conv->shape.dtype, packed);
}

struct Copy {
    const char *from;
    char *to;
};
void copy_share(void *context, long begin, long end) {
    const Copy &copy = *static_cast<const Copy *>(context);
    std::memcpy(copy.to + begin, copy.from + begin, size_t(end - begin));
}

void forward(ck_conv *conv, const void *x, const void *packed, const float *bias, const void *addend, void *y,
             void *scratch) {
    Plan *plan = plan_of(conv);
    if (plan->has_addend && addend != y) {
        Copy copy{static_cast<const char *>(addend), static_cast<char *>(y)};
        ck_parallel(long(plan->outputBytes), 1 << 16, copy_share, &copy);
    }
    plan->convolution.set(plan->x, x);
    plan->convolution.set(plan->weights, packed);
    if (plan->has_bias) plan->convolution.set(plan->bias, bias);
    plan->convolution.set(plan->y, y);
    plan->convolution.set(plan->scratchpad, scratch);
    plan->run();
}

void backward_data(ck_conv *conv, const void *gy, const void *packed, void *gx, void *scratch) {
    Plan *plan = plan_of(conv);
    plan->convolution.set(plan->turned ? plan->x : plan->y, gy);
    plan->convolution.set(plan->weights, packed);
    plan->convolution.set(plan->turned ? plan->y : plan->x, gx);
    plan->convolution.set(plan->scratchpad, scratch);
    plan->run();
}

void backward_weights(ck_conv *conv, const void *x, const void *gy, float *gw, float *gb, int accumulate,
                      void *scratch) {
    Plan *plan = plan_of(conv);
    char *gradient = static_cast<char *>(scratch) + plan->scratchpadBytes;
    auto *biasGradient = reinterpret_cast<float *>(gradient + plan->gradientBytes);
    plan->convolution.set(plan->x, x);
    plan->convolution.set(plan->y, gy);
    plan->convolution.set(plan->weights, gradient);
    if (plan->has_bias) plan->convolution.set(plan->bias, accumulate ? biasGradient : gb);
    plan->convolution.set(plan->scratchpad, scratch);
    plan->run();
    ck_unpack_weights(&plan->layout.get(), reinterpret_cast<float *>(gradient), accumulate, gw);
    if (plan->has_bias && accumulate)
        for (long o = 0; o < plan->shape.O; o++) gb[o] += biasGradient[o];
}

const ck_conv_methods methods = {destroy, implementation, pack, forward, backward_data, backward_weights};

const char *instruction_set() {
    switch (dnnl::get_effective_cpu_isa()) {
        case dnnl::cpu_isa::sse41:
            return "sse41";
        case dnnl::cpu_isa::avx:
            return "avx";
        case dnnl::cpu_isa::avx2:
            return "avx2";
        case dnnl::cpu_isa::avx2_vnni:
            return "avx2_vnni";
        case dnnl::cpu_isa::avx512_core:
            return "avx512_core";
        case dnnl::cpu_isa::avx512_core_vnni:
            return "avx512_core_vnni";
        case dnnl::cpu_isa::avx512_core_bf16:
            return "avx512_core_bf16";
        case dnnl::cpu_isa::avx512_core_amx:
            return "avx512_core_amx";
#if DNNL_VERSION_MAJOR >= 3
        case dnnl::cpu_isa::avx512_core_fp16:
            return "avx512_core_fp16";
#endif
        default:
            return "other instruction set";
    }
}

}  // namespace

ck_conv *ck_conv_create_onednn(ck_conv_kind kind, const ck_conv_shape *shape, int has_bias, int has_addend,
                               char *error, size_t error_size) {
    // oneDNN uses the calling thread's OpenMP thread count when it creates a primitive, and that count is per thread.
    omp_set_num_threads(ck_threads());
    // If two threads create the same primitive at the same time, the result can be a primitive that computes wrong
    // values, which oneDNN's cache then returns to all callers (observed in 2.6.3).
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    Plan *plan = nullptr;
    try {
        plan = new Plan;
        static_cast<ck_conv &>(*plan) = ck_conv{&methods, *shape, kind, has_bias, has_addend, 0, 0};
        plan->build();
        if (is_fast(plan->name)) return plan;
    } catch (const dnnl::error &failure) {
        if (failure.status != dnnl_unimplemented) {
            std::snprintf(error, error_size, "convolution: oneDNN: %s", failure.what());
            delete plan;
            return nullptr;
        }
    } catch (const std::exception &failure) {
        std::snprintf(error, error_size, "convolution: %s", failure.what());
        delete plan;
        return nullptr;
    }
    // No fast implementation, for example bf16 on a processor without it.
    delete plan;
    return ck_conv_create_openblas(kind, shape, has_bias, has_addend, error, error_size);
}

extern "C" int ck_onednn_allows_bf16(void) {
    const int bf16 = dnnl_cpu_isa_avx512_core_bf16;
    return (dnnl_get_effective_cpu_isa() & bf16) == bf16;
}

const char *ck_conv_describe_onednn(void) {
    static const std::string text = [] {
        const dnnl_version_t *v = dnnl_version();
        return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
               std::to_string(v->patch) + ", " + instruction_set();
    }();
    return text.c_str();
}

#endif
