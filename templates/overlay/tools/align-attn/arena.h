#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <string>
#include <vector>

// One block of memory for all tensors of a context, with guard bytes around each. Every byte starts as 0xff, which is NaN in f16 and f32 and
// in the scale of a tile: a read outside of a tensor gives NaN, and compare() reports a write.
class arena {
  public:
    explicit arena(ggml_context * ctx);

    void snapshot();                             // store a copy of all bytes
    void expect(const void * data, size_t size); // these bytes may have changed: store them again
    // Adds a line for each tensor, or guard behind it, that differs from the copy; then takes a new copy.
    void compare(const char * who, std::vector<std::string> & faults);

  private:
    struct region {
        std::string name;
        size_t      offset;
        size_t      size;
    };

    std::vector<uint8_t>    block;
    std::vector<uint8_t>    copy;
    uint8_t *               base = nullptr;
    size_t                  size = 0;
    std::vector<region>     regions;
    ggml_backend_buffer_ptr buffer;
};
