#include "rows.h"

#include "parallel.h"

#define ROWS_ALONE 8000  /* nanoseconds of work that one thread does at once */
#define ROWS_BRIEF 20000 /* nanoseconds of work for which no worker is woken */
#define ROWS_PIECE 4000  /* nanoseconds of a piece, at least */
#define ROWS_PIECES 64   /* at most */

typedef struct rows_job {
    gri_rows_fn fn;
    void *arg;
    int64_t n, piece;
} rows_job;

static void rows_piece(void *arg, int64_t piece) {
    const rows_job *j = arg;
    int64_t from = piece * j->piece, to = from + j->piece;
    j->fn(j->arg, from, to < j->n ? to : j->n);
}

void gri_rows(gr_ctx *ctx, int64_t n, int64_t cost, gri_rows_fn fn, void *arg) {
    int64_t work = n * (cost > 0 ? cost : 1), pieces = work / ROWS_PIECE;
    if (n <= 0) return;
    if (work < ROWS_ALONE || ctx->threads == 1) {
        fn(arg, 0, n);
        return;
    }
    if (pieces > ROWS_PIECES) pieces = ROWS_PIECES;
    if (pieces > n) pieces = n;
    rows_job j = {fn, arg, n, (n + pieces - 1) / pieces};
    (work < ROWS_BRIEF ? gri_parallel_brief : gri_parallel)(ctx, (n + j.piece - 1) / j.piece, rows_piece, &j);
}
