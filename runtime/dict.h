/* State dicts: named tensors in order, and texts beside them. */
#ifndef GRI_DICT_H
#define GRI_DICT_H

#include "tensor.h"

typedef struct gri_entry {
    char *name;
    void *value; /* gr_tensor, +1; or a copied text */
} gri_entry;

/* Entries in order, found by name through a table of positions: open addressing, at most half full. */
typedef struct gri_entries {
    gri_entry *list;
    int n, cap;
    int *table; /* position + 1; 0: free */
    int cap_table;
} gri_entries;

struct gr_dict {
    gri_object head;
    gri_entries tensors, texts;
};

void gri_dict_free(gr_dict *d);
int gri_dict_position(const gr_dict *d, const char *name); /* of a tensor; -1 if there is none */

#endif
