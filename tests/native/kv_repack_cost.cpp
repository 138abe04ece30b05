// What repacking costs: the churn of kv_churn.h, with the packer's time beside that of all else.
//
//   kv_repack_cost MODEL churn K V [key=value ...]
//
// The packer of this program stands before that of the library, which it calls and measures.

#include "kv_churn.h"
#include "llama-kv-mixed-packer.h"

#include <dlfcn.h>
#include <time.h>

static const char * const PACK = "_ZN21llama_kv_mixed_packer4packERKSt6vectorIPK19llama_kv_mixed_sideSaIS3_EERKS0_I19llama_kv_mixed_packSaIS8_EEl";

static double packing   = 0; // seconds of this process
static double repacking = 0;

static double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

bool llama_kv_mixed_packer::pack(const std::vector<const llama_kv_mixed_side *> & sides, const std::vector<llama_kv_mixed_pack> & packs,
                                 int64_t rot_k) {
    using function         = bool (*)(llama_kv_mixed_packer *, decltype(sides), decltype(packs), int64_t);
    static const auto next = (function) dlsym(RTLD_NEXT, PACK);
    check(next != nullptr, "the library has no packer");
    const bool   repacks = std::any_of(packs.begin(), packs.end(), [](const auto & p) { return !p.packed.empty(); });
    const double start   = cpu_seconds();
    const bool   res     = next(this, sides, packs, rot_k);
    (repacks ? repacking : packing) += cpu_seconds() - start;
    return res;
}

static void scenario_cost(llama_model * model, ggml_type k, ggml_type v) {
    const double start = cpu_seconds();
    scenario_churn(model, k, v);
    printf("{\"packing\": %g, \"repacking\": %g, \"all\": %g}\n", packing, repacking, cpu_seconds() - start);
}

int main(int argc, char ** argv) {
    return run_scenario(argc, argv,
                        {
                            { "churn", scenario_cost },
    });
}
