// The driver of our own, continued: streams, what is captured of them, events, and contexts beside the devices' own.
// Only benchmarks, candle and the tests of graphs call these; everything that is put on a stream has run when the call
// returns.

#include <algorithm>
#include <chrono>
#include <cstring>

#include "libcuda.h"

using Clock = std::chrono::steady_clock;

extern "C" {

int cuCtxGetCurrent(Context **context) {
    *context = current();
    return SUCCESS;
}

int cuCtxSetCurrent(Context *context) {
    if (!initialized) return mistake(INVALID_CONTEXT);
    if (!stack.empty()) stack.pop_back();
    if (context) stack.push_back(context);
    return SUCCESS;
}

int cuCtxCreate_v3(Context **context, void *, int, unsigned, int device) {
    if (!initialized) return mistake(INVALID_CONTEXT);
    *context = new Context{device, 1};
    stack.push_back(*context);
    return SUCCESS;
}

int cuCtxDestroy_v2(Context *context) {
    if (current() == context) stack.pop_back();
    delete context;
    return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned) {
    if (!ready()) return mistake(INVALID_CONTEXT);
    *stream = new Stream{current(), nullptr};
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream *stream) {
    delete stream;
    return SUCCESS;
}

int cuStreamBeginCapture_v2(Stream *stream, int) {
    if (!stream || !ready(stream) || stream->captured) return mistake(INVALID_VALUE);
    stream->captured = new Graph;
    machine.captures.push_back(stream->captured);
    return SUCCESS;
}

int cuStreamEndCapture(Stream *stream, Graph **graph) {
    if (!stream || !stream->captured) return mistake(INVALID_VALUE);
    *graph = stream->captured;
    stream->captured = nullptr;
    machine.captures.erase(std::find(machine.captures.begin(), machine.captures.end(), *graph));
    if (!(*graph)->spoilt) return SUCCESS;
    delete *graph;
    *graph = nullptr;
    return CAPTURE_INVALIDATED;
}

int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    *executable = new Graph(*graph);
    return SUCCESS;
}

int cuGraphLaunch(Graph *executable, Stream *stream) {
    if (!ready(stream) || is_captured(stream)) return mistake(INVALID_VALUE);
    for (const auto &work : executable->work)
        if (const int result = work(); result != SUCCESS) return result;
    return SUCCESS;
}

int cuGraphExecDestroy(Graph *executable) {
    delete executable;
    return SUCCESS;
}

int cuGraphDestroy(Graph *graph) {
    delete graph;
    return SUCCESS;
}

int cuEventCreate(Clock::time_point **event, unsigned) {
    if (!ready()) return mistake(INVALID_CONTEXT);
    *event = new Clock::time_point;
    return SUCCESS;
}

int cuEventDestroy_v2(Clock::time_point *event) {
    delete event;
    return SUCCESS;
}

int cuEventRecord(Clock::time_point *event, void *stream) {
    if (!ready(stream) || is_captured(stream)) return mistake(INVALID_CONTEXT);
    *event = Clock::now();
    return SUCCESS;
}

int cuStreamWaitEvent(void *stream, Clock::time_point *, unsigned) {
    return ready(stream) && !is_captured(stream) ? SUCCESS : mistake(INVALID_CONTEXT);
}

int cuEventSynchronize(Clock::time_point *) { return SUCCESS; }

int cuEventElapsedTime(float *milliseconds, Clock::time_point *begin, Clock::time_point *end) {
    *milliseconds = std::chrono::duration<float, std::milli>(*end - *begin).count();
    return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, std::size_t bytes, void *stream) {
    if (!ready(stream) || !within(to, bytes) || !within(from, bytes)) return mistake(INVALID_VALUE);
    return run(stream, [=] {
        std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
        return SUCCESS;
    });
}

}  // extern "C"
