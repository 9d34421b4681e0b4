/* A C program that trains: it lends its own buffer to a script, and reads the result without a copy.
 *
 *   cc host.c $(pkg-config --cflags --libs gradrun) -o host && ./host train.lua */
#include <gradrun.h>
#include <math.h>
#include <stdio.h>

#define N 64

static int failed(gr_runtime *rt, const char *what) {
    fprintf(stderr, "%s: %s\n", what, gr_runtime_errmsg(rt));
    return 1;
}

static int train(gr_runtime *rt, const char *script) {
    static float points[N][2], at = 2; /* y = 3 x - 1; lent, so they outlive the runtime */
    for (int i = 0; i < N; i++) {
        points[i][0] = (float)i / N;
        points[i][1] = 3 * points[i][0] - 1;
    }

    gr_tensor *lent, *x;
    gr_ctx *ctx = gr_runtime_ctx_peek(rt);
    const int64_t dims[] = {N, 2}, one[] = {1, 1};
    if (gr_tensor_borrow(ctx, GR_F32, 2, dims, NULL, points, NULL, NULL, &lent) != GR_OK) return 1;
    gr_value value = gr_value_tensor(lent), steps = gr_value_integer(200);
    gr_status s = gr_set_global(rt, "points", &value);
    gr_release(lent); /* the script's variable holds it now */
    if (s != GR_OK || gr_set_global(rt, "steps", &steps) != GR_OK) return failed(rt, "globals");
    if (gr_run_file(rt, script) != GR_OK) return failed(rt, script);

    if (gr_tensor_borrow(ctx, GR_F32, 2, one, NULL, &at, NULL, NULL, &x) != GR_OK) return 1;
    gr_value arg = gr_value_tensor(x), y, factor = gr_value_number(10);
    s = gr_call(rt, "predict", 1, &arg, 1, &y);
    gr_release(x);
    if (s != GR_OK) return failed(rt, "predict");
    const float *data = gr_tensor_data_peek(y.tensor);
    const int64_t *shape = gr_tensor_dims_peek(y.tensor);
    printf("predict(2) = %.3f, shape %d x %d\n", data[0], (int)shape[0], (int)shape[1]);
    int wrong = fabsf(data[0] - 5) > 0.05f;
    gr_release(y.tensor);

    if (gr_call(rt, "scale", 1, &factor, 0, NULL) != GR_OK) return failed(rt, "scale");
    printf("points[1] is now %g, %g\n", points[1][0], points[1][1]);
    return wrong || points[1][0] != 10.0f / N;
}

int main(int argc, char **argv) {
    gr_runtime *rt;
    if (gr_open(NULL, &rt) != GR_OK) return 1;
    int status = train(rt, argc > 1 ? argv[1] : "scripts/embed/train.lua");
    static const char wrong[] = "local t = require('gradrun').zeros(2, 3)\nreturn t:matmul(t)";
    gr_status s = gr_run_buffer(rt, "wrong.lua", wrong, sizeof wrong - 1);
    printf("status %d (%s): %s\n", s, gr_status_str(s), gr_runtime_errmsg(rt)); /* and the runtime goes on */
    int64_t alive = gr_close(rt);
    printf("closed with %d live objects\n", (int)alive);
    return status || s != GR_ERR_SCRIPT || alive != 0;
}
