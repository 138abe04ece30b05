#pragma once

// What GGML_QLUTATTN_KERNEL in the environment forces, for packing and attention alike: "lut" or "dot", the kernel of every type in its fastest
// implementation; "lut-scalar" or "dot-scalar", the same kernel with the plain implementations, of the packer too. Any other value, and a
// kernel that this build lacks, is logged once and ignored.

#include "qlutattn-config.h"

// whether a kernel is forced, and if so, which
bool qlutattn_forced_kernel(qlutattn_kernel & kernel);

// whether the plain implementations are forced
bool qlutattn_is_scalar_forced();
