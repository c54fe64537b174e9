/* Margins of boosted trees that are complete: `flat_trees.py` describes the arrays and calls this.
 *
 * A booster of XGBoost takes as long to be called for the 90 candidates of one request as its trees take. Here 16 rows go
 * down a tree side by side, so that the processor has 16 comparisons to do while it waits for the next nodes. Sums are
 * those of XGBoost to the last bit: float32, from the start of the booster on, tree by tree.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

enum { ROWS = 16 };

typedef struct {
    const float *rows;       /* (n, width) */
    const int32_t *features; /* (boosters * trees, inner): column that an inner node compares */
    const float *thresholds; /* (boosters * trees, inner): from this value on, the right child */
    const uint8_t *gap_right; /* (boosters * trees, inner): whether a missing value goes right; read if missing is NaN */
    const float *leaves;     /* (boosters * trees, inner + 1) */
    const float *starts;     /* (boosters,) */
    Py_ssize_t n, width, boosters, trees, depth;
    float missing;           /* what stands for NaN; NaN: nodes know where missing values go */
} Forest;

static void margins(const Forest *f, float *columns, float *out)
{
    const Py_ssize_t inner = ((Py_ssize_t)1 << f->depth) - 1;
    const int reads_gaps = f->missing != f->missing;
    for (Py_ssize_t first = 0; first < f->n; first += ROWS) {
        const Py_ssize_t here = f->n - first < ROWS ? f->n - first : ROWS;
        for (Py_ssize_t j = 0; j < ROWS; j++) { /* rows past the end repeat the first */
            const float *row = f->rows + (first + (j < here ? j : 0)) * f->width;
            for (Py_ssize_t c = 0; c < f->width; c++)
                columns[c * ROWS + j] = row[c] != row[c] ? f->missing : row[c];
        }
        for (Py_ssize_t b = 0; b < f->boosters; b++) {
            float sum[ROWS];
            for (int j = 0; j < ROWS; j++) sum[j] = f->starts[b];
            for (Py_ssize_t t = b * f->trees; t < (b + 1) * f->trees; t++) {
                const int32_t *feature = f->features + t * inner;
                const float *threshold = f->thresholds + t * inner;
                const uint8_t *right = f->gap_right + t * inner;
                int32_t node[ROWS] = {0};
                for (Py_ssize_t level = 0; level < f->depth; level++) {
                    if (reads_gaps) {
                        for (int j = 0; j < ROWS; j++) {
                            const int32_t at = node[j];
                            const float value = columns[feature[at] * ROWS + j];
                            node[j] = 2 * at + 1 + ((value >= threshold[at]) | ((value != value) & right[at]));
                        }
                    } else {
                        for (int j = 0; j < ROWS; j++) {
                            const int32_t at = node[j];
                            node[j] = 2 * at + 1 + (columns[feature[at] * ROWS + j] >= threshold[at]);
                        }
                    }
                }
                const float *leaf = f->leaves + t * (inner + 1);
                for (int j = 0; j < ROWS; j++) sum[j] += leaf[node[j] - inner];
            }
            for (Py_ssize_t j = 0; j < here; j++) out[(first + j) * f->boosters + b] = sum[j];
        }
    }
}

static PyObject *py_margins(PyObject *self, PyObject *args)
{
    Py_buffer rows, features, thresholds, gap_right, leaves, starts, out;
    Forest f;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*nnfw*", &rows, &features, &thresholds, &gap_right, &leaves, &starts,
                          &f.width, &f.depth, &f.missing, &out))
        return NULL;
    f.rows = rows.buf, f.features = features.buf, f.thresholds = thresholds.buf, f.gap_right = gap_right.buf;
    f.leaves = leaves.buf, f.starts = starts.buf;
    f.boosters = starts.len / (Py_ssize_t)sizeof(float);
    int fits = f.width > 0 && f.boosters > 0 && f.depth > 0 && f.depth < 20;
    if (!fits) f.width = f.boosters = f.depth = 1;
    const Py_ssize_t inner = ((Py_ssize_t)1 << f.depth) - 1;
    f.n = rows.len / ((Py_ssize_t)sizeof(float) * f.width);
    f.trees = gap_right.len / (inner * f.boosters);
    float *columns = PyMem_Malloc(sizeof(float) * ROWS * f.width);
    fits = fits && features.len == gap_right.len * 4 && thresholds.len == gap_right.len * 4 &&
               gap_right.len == f.boosters * f.trees * inner && leaves.len == f.boosters * f.trees * (inner + 1) * 4 &&
               out.len == f.n * f.boosters * 4;
    for (Py_ssize_t at = 0; fits && at < gap_right.len; at++)
        fits = f.features[at] >= 0 && f.features[at] < f.width;
    if (columns && fits) {
        Py_BEGIN_ALLOW_THREADS
        margins(&f, columns, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(columns);
    Py_buffer *held[] = {&rows, &features, &thresholds, &gap_right, &leaves, &starts, &out};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) PyBuffer_Release(held[i]);
    if (!columns) return PyErr_NoMemory();
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the arrays of the trees do not fit together");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"margins", py_margins, METH_VARARGS,
     "margins(rows, features, thresholds, gap_right, leaves, starts, width, depth, missing, out): fill `out`."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_trees", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__trees(void) { return PyModule_Create(&module); }
