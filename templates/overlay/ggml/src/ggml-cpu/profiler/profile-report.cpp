// Sums up what was recorded, and writes it in the form that the file's name asks for.

#include "profile-report.h"

#include "ggml.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>

static bool ends_in(const std::string & path, const char * ending) {
    const size_t n = strlen(ending);
    return path.size() > n && path.compare(path.size() - n, n, ending) == 0;
}

// What is said here goes to stderr and not to ggml's log: it is what the user asked for by the environment, tools such as llama-bench turn the log
// off, and at exit a log callback may be gone.
bool check_profile_path(const char * path) {
    if (!ends_in(path, ".json") && !ends_in(path, ".txt")) {
        fprintf(stderr, "GGML_PROFILE: no profile is made, as '%s' ends neither in .json (a trace) nor in .txt (a table).\n", path);
        return false;
    }
    FILE * file = fopen(path, "w");
    if (!file) {
        fprintf(stderr, "GGML_PROFILE: no profile is made, as '%s' cannot be written: %s.\n", path, strerror(errno));
        return false;
    }
    fclose(file);
    return true;
}

const char * kind_name(graph_kind kind) {
    static const char * const names[GRAPH_KINDS] = { "decode", "small batch", "prefill", "other" };
    return names[kind];
}

// a type's name; of "qlutattn_k4_128x128" only what tells it from the others
static std::string short_type(uint8_t type) {
    const std::string name  = ggml_type_name((ggml_type) type);
    const size_t      start = name.rfind("qlutattn_", 0) == 0 ? strlen("qlutattn_") : 0;
    return start ? name.substr(start, name.find('_', start) - start) : name;
}

std::string operation_name(uint8_t op, uint8_t variant, uint8_t n_fused, uint8_t fused_op, uint8_t type_a, uint8_t type_b) {
    std::string name = op == GGML_OP_UNARY ? ggml_unary_op_name((ggml_unary_op) variant) :
                       op == GGML_OP_GLU   ? ggml_glu_op_name((ggml_glu_op) variant) :
                                             ggml_op_name((ggml_op) op);
    if (n_fused > 0) {
        name += (n_fused > 1 ? "+...+" : "+") + std::string(ggml_op_name((ggml_op) fused_op));
    }
    if (type_a != GGML_TYPE_COUNT) {
        name += " " + short_type(type_a);
    }
    if (type_b != GGML_TYPE_COUNT && (type_a != type_b || op != GGML_OP_FLASH_ATTN_EXT)) {
        name += (op == GGML_OP_FLASH_ATTN_EXT || op == GGML_OP_FLASH_ATTN_EXT_MIXED ? " " : " to ") + short_type(type_b);
    }
    return name;
}

static std::string layer_name(int layer) {
    return layer == PROFILE_NO_LAYER ? "none" : std::to_string(layer);
}

static std::vector<profile_section> make_sections(const profile_totals & totals) {
    std::vector<profile_section> sections;
    for (int k = 0; k < GRAPH_KINDS; ++k) {
        const graph_kind kind = (graph_kind) k;
        if (totals.graphs(kind).graphs == 0) {
            continue;
        }
        profile_section                     section = { kind_name(kind), totals.graphs(kind), {}, {}, {} };
        std::map<std::string, profile_sums> operations;
        std::map<int, profile_sums>         layers;
        for (const auto & [key, sums] : totals.nodes()) {
            if (key.kind == kind) {
                section.all.add(sums);
                operations[operation_name(key.op, key.variant, key.n_fused, key.fused_op, key.type_a, key.type_b)].add(sums);
                layers[key.layer == PROFILE_NO_LAYER ? INT_MAX : key.layer].add(sums);
            }
        }
        for (const auto & [name, sums] : operations) {
            section.operations.push_back({ name, sums });
        }
        std::stable_sort(section.operations.begin(), section.operations.end(),
                         [](const profile_row & a, const profile_row & b) { return a.sums.time > b.sums.time; });
        for (const auto & [layer, sums] : layers) {
            section.layers.push_back({ layer_name(layer == INT_MAX ? PROFILE_NO_LAYER : layer), sums });
        }
        sections.push_back(std::move(section));
    }
    return sections;
}

// Nodes in progress are cut off here, and described: their thread has not come to it.
static void cut_off(graph_profile_lane & lane, uint64_t now) {
    for (size_t i = lane.graphs.size(); i-- > 0 && lane.graphs.at(i).end == 0;) {
        lane.graphs.at(i).end    = now;
        lane.graphs.at(i).status = GGML_STATUS_ABORTED;
    }
    if (lane.events.size() > 0 && lane.events.at(lane.events.size() - 1).passed == 0) {
        lane.events.at(lane.events.size() - 1).passed = now;
    }
    if (lane.is_computing && lane.is_in_node) {
        profile_event & event = lane.events.next();
        event.end = event.passed = now;
        event.ith                = (uint16_t) lane.place;
        event.kind               = lane.kind;
        describe_node(event, lane.graph, event.node, 0);
        event.is_cut    = true;
        lane.is_in_node = false;
        lane.events.push();
    }
}

void write_profile(const std::string & path, const profile_lanes & lanes, const profile_clock & clock) {
    profile_report report = { clock.name(), clock.ns_per_tick(), clock.ticks() };
    profile_totals totals;
    for (const auto & lane : lanes) {
        const std::lock_guard<std::mutex> lock(lane->mutex);
        cut_off(*lane, report.now);
        profile_totals own = lane->totals;
        for (size_t i = 0; i < lane->events.size(); ++i) {
            own.add(lane->events.at(i));
        }
        for (size_t i = 0; i < lane->graphs.size(); ++i) {
            own.add(lane->graphs.at(i));
        }
        totals.add(own);
        report.n_events += lane->events.size() + lane->n_dropped;
        report.n_dropped += lane->n_dropped;
    }
    report.wall     = totals.last_end > totals.first_begin ? totals.last_end - totals.first_begin : 0;
    report.sections = make_sections(totals);

    FILE * file = fopen(path.c_str(), "w");
    bool   ok   = file != nullptr;
    if (ok) {
        if (ends_in(path, ".json")) {
            write_trace(file, report, lanes, clock);
        } else {
            write_table(file, report);
        }
        ok = !ferror(file);
        ok = fclose(file) == 0 && ok;
    }
    if (!ok) {
        fprintf(stderr, "GGML_PROFILE: the profile could not be written to '%s': %s.\n", path.c_str(), strerror(errno));
        return;
    }
    fprintf(stderr, "GGML_PROFILE: %llu nodes of %zu thread(s) are in %s", (unsigned long long) report.n_events, lanes.size(), path.c_str());
    if (report.n_dropped > 0 && ends_in(path, ".json")) {
        fprintf(stderr, ", the oldest %llu only in the sums", (unsigned long long) report.n_dropped);
    }
    fprintf(stderr, "\n");
}
