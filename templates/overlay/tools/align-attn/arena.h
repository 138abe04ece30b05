#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <string>
#include <vector>

// One block of memory for all tensors of a context, with guard bytes around each. Every byte starts as 0xff, which is NaN in f16 and
// f32 and in a tile's scale: whoever reads what is not his own gets NaN, and whoever writes it is found out.
class arena {
  public:
    explicit arena(ggml_context * ctx);

    void snapshot();                             // remember all bytes
    void expect(const void * data, size_t size); // these bytes were meant to change: remember them as they are now
    // Adds a line for each tensor, or guard behind it, that is not as remembered; then remembers what is there.
    void compare(const char * who, std::vector<std::string> & faults);

  private:
    struct owner {
        std::string name;
        size_t      offset;
        size_t      size;
    };

    std::vector<uint8_t>    block;
    std::vector<uint8_t>    remembered;
    uint8_t *               base = nullptr;
    size_t                  size = 0;
    std::vector<owner>      owners;
    ggml_backend_buffer_ptr buffer;
};
