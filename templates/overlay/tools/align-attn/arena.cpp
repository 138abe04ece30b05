#include "arena.h"

#include "ggml.h"

#include <cstring>

static constexpr size_t ALIGNMENT = 64;
static constexpr size_t GUARD     = 256;

static size_t aligned(size_t n) {
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

arena::arena(ggml_context * ctx) {
    size = GUARD;
    for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
        size += t->view_src ? 0 : aligned(ggml_nbytes(t)) + GUARD;
    }
    block.assign(size + ALIGNMENT, 0xff);
    base = block.data() + (ALIGNMENT - (uintptr_t) block.data() % ALIGNMENT) % ALIGNMENT;
    buffer.reset(ggml_backend_dev_buffer_from_host_ptr(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), base, size, size));

    size_t at = GUARD;
    for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
        if (t->view_src) {
            ggml_backend_view_init(t);
            continue;
        }
        ggml_backend_tensor_alloc(buffer.get(), t, base + at);
        const std::string shape = std::string(ggml_type_name(t->type)) + " tensor of " + std::to_string(ggml_nbytes(t)) + " bytes";
        regions.push_back({ shape, at, ggml_nbytes(t) });
        at += aligned(ggml_nbytes(t)) + GUARD;
    }
}

void arena::snapshot() {
    copy.assign(base, base + size);
}

void arena::expect(const void * data, size_t n) {
    memcpy(copy.data() + ((const uint8_t *) data - base), data, n);
}

void arena::compare(const char * who, std::vector<std::string> & faults) {
    if (memcmp(base, copy.data(), size) == 0) {
        return;
    }
    for (size_t i = 0; i < size;) {
        if (base[i] == copy[i]) {
            i++;
            continue;
        }
        size_t o = 0;
        while (o + 1 < regions.size() && regions[o + 1].offset <= i) {
            o++;
        }
        const bool inside = i >= regions[o].offset && i < regions[o].offset + regions[o].size;
        faults.push_back(std::string(who) + " wrote " + (inside ? "into a " : "next to a ") + regions[o].name + ", at byte " +
                         std::to_string((int64_t) i - (int64_t) regions[o].offset));
        i = o + 1 < regions.size() ? regions[o + 1].offset : size; // one line for each tensor
    }
    snapshot();
}
