// A oneDNN primitive that is created once and called with pointers.
#pragma once
#include <oneapi/dnnl/dnnl.hpp>

#include <utility>
#include <vector>

inline const dnnl::engine &processor() {
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

/// A primitive with the memory objects of its arguments.
class Call {
  public:
    Call() = default;
    Call(dnnl::primitive primitive, dnnl_stream_t stream) : primitive(std::move(primitive)), stream(stream) {}

    /// Declares argument `name`; returns its index for `set`.
    int add(int name, const dnnl::memory::desc &desc) {
        memories.emplace_back(desc, processor(), nullptr);
        arguments.push_back({name, memories.back().get()});
        return int(memories.size()) - 1;
    }
    void set(int place, const void *data) {
        // oneDNN's handle is not const, but sources are only read.
        dnnl_memory_set_data_handle(arguments[size_t(place)].memory, const_cast<void *>(data));
    }
    void run() const {
        auto status =
            dnnl_primitive_execute(primitive.get(), stream, int(arguments.size()), arguments.data());
        dnnl::error::wrap_c_api(status, "oneDNN could not execute a convolution");
    }

  private:
    dnnl::primitive primitive;
    dnnl_stream_t stream = nullptr;
    std::vector<dnnl::memory> memories;
    std::vector<dnnl_exec_arg_t> arguments;
};
