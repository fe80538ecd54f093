/* Whether this build's programs run under a sanitizer, which needs memory and address space of its own. */
#ifndef LB_TESTS_SUPPORT_SANITIZED_H
#define LB_TESTS_SUPPORT_SANITIZED_H

#ifndef __has_feature
#define __has_feature(x) 0 /* gcc */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||     \
    __has_feature(thread_sanitizer)
#define LB_SANITIZED 1
#else
#define LB_SANITIZED 0
#endif

#endif
