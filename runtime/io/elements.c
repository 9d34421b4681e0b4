#include "io/elements.h"

#include <string.h>

gr_dtype gri_element_dtype(gri_element e) {
    if (e.kind == 'f') return e.size == 8 ? GR_F64 : GR_F32;
    if (e.kind == 'b') return GR_F32;
    return e.kind == 'u' && e.size == 1 ? GR_U8 : GR_I64;
}

/* Exact: every half is a float. A subnormal half m 2^-24 is made by arithmetic. */
static float elements_half(uint32_t h) {
    uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff, bits;
    float v;
    if (exponent == 0) {
        v = (float)mantissa * 0x1p-24f;
        return sign ? -v : v;
    }
    bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint64_t elements_bits(gri_element e, const uint8_t *p) {
    uint64_t v = 0;
    for (int k = 0; k < e.size; k++) v = v << 8 | p[e.big ? k : e.size - 1 - k];
    return v;
}

static void elements_float(gri_element e, uint64_t bits, int64_t i, void *to) {
    uint32_t low = (uint32_t)bits;
    if (e.size == 8) memcpy((double *)to + i, &bits, sizeof bits);
    else if (e.kind == 'f' && e.size == 2) ((float *)to)[i] = elements_half(low);
    else memcpy((float *)to + i, e.kind == 'b' ? &(uint32_t){low << 16} : &low, sizeof low);
}

bool gri_elements_read(gri_element e, const void *from, int64_t n, void *to) {
    const uint8_t *p = from;
    bool little = !e.big && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    if (e.size == 1 && e.kind == 'u') {
        memcpy(to, p, (size_t)n);
        return true;
    }
    if (little && (e.size == 8 || (e.kind == 'f' && e.size == 4)) && e.kind != 'u') {
        memcpy(to, p, (size_t)n * e.size);
        return true;
    }
    for (int64_t i = 0; i < n; i++, p += e.size) {
        uint64_t bits = elements_bits(e, p);
        if (e.kind == 'f' || e.kind == 'b') {
            elements_float(e, bits, i, to);
            continue;
        }
        int unused = 64 - 8 * e.size;
        if (e.kind == 'u' && bits > INT64_MAX) return false;
        ((int64_t *)to)[i] = e.kind == 'u' ? (int64_t)bits : (int64_t)(bits << unused) >> unused;
    }
    return true;
}
