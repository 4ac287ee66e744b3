// Errors of C++ as texts that src/native.rs takes with smx_take_error.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

inline thread_local std::string failure;
inline thread_local bool failed = false;

inline void fail(const char *text) {
  failure = text;
  failed = true;
}

template <class F> auto guarded(F &&work) -> decltype(work()) {
  failed = false;
  try {
    return work();
  } catch (const c10::Error &error) {
    fail(error.what_without_backtrace());
  } catch (const std::exception &error) {
    fail(error.what());
  } catch (...) {
    fail("an exception of an unknown kind");
  }
  return decltype(work())();
}
