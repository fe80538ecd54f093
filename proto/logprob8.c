#include "proto/logprob8.h"

#include <math.h>

#define MOST_CODE 255

uint8_t lb_logprob8_from(float logprob) {
    if (!(logprob > LB_LOGPROB8_LEAST)) {
        return MOST_CODE;
    }
    return logprob < 0 ? (uint8_t)lrintf(MOST_CODE * sqrtf(logprob / LB_LOGPROB8_LEAST)) : 0;
}

float lb_logprob8_to(uint8_t code) {
    float root = (float)code / MOST_CODE;
    return LB_LOGPROB8_LEAST * root * root;
}
