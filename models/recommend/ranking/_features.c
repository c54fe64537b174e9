/* Features of pairs of customer and item, looked up in the tables of histories and items: `features.py` has the same in NumPy. */
#include "_columns.h"

typedef struct {
    const int64_t *pair_keys, *group_keys, *rows, *ids;
    const float *pairs, *users, *groups, *items;
    const int64_t *codes[LEVELS];
    const float *trends[LEVELS];
    Py_ssize_t n_pairs, n_groups, n_items, n_trends[LEVELS], n;
} Lookup;

/* Index of a key in ascending keys; `n` if it is missing. */
static Py_ssize_t find(const int64_t *keys, Py_ssize_t n, int64_t key)
{
    Py_ssize_t low = 0, high = n;
    while (low < high) {
        const Py_ssize_t middle = (low + high) / 2;
        if (keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low < n && keys[low] == key ? low : n;
}

static float at_least_float(float value, float low) { return value < low ? low : value; }

static void look_up(const Lookup *in, float *out)
{
    for (Py_ssize_t i = 0; i < in->n; i++, out += FEATURES) {
        const int64_t user = in->rows[i], item = in->ids[i];
        const float *pair = in->pairs + find(in->pair_keys, in->n_pairs, user * in->n_items + item) * PAIR;
        const float *of_user = in->users + user * USER, *of_item = in->items + item * ITEM;
        float *const cross = out + FEATURES - CROSS, *next = out + PAIR + USER + ITEM;
        memcpy(out, pair, sizeof(float) * PAIR);
        memcpy(out + PAIR, of_user, sizeof(float) * USER);
        memcpy(out + PAIR + USER, of_item, sizeof(float) * ITEM);
        for (int level = 0; level < LEVELS; level++) {
            const int64_t code = in->codes[level][item];
            const int64_t key = (user * LEVELS + level) * in->n_items + code;
            const float *group = in->groups + (code < 0 ? in->n_groups : find(in->group_keys, in->n_groups, key)) * GROUP;
            memcpy(next, group, sizeof(float) * GROUP);
            next[GROUP] = code >= 0 && code < in->n_trends[level] ? in->trends[level][code] : NAN;
            cross[CROSS - LEVELS + level] = group[0] > 0 ? pair[DECAYED_120D] / at_least_float(group[0], 1e-12f) : 0.0f;
            next += GROUP + 1;
        }
        cross[0] = pair[DAYS_SINCE_LAST] / of_item[ITEM_GAP];
        cross[1] = (pair[ORDERS] + 0.5f) / (pair[DAYS_SINCE_FIRST] + 40.0f);
        cross[2] = pair[ORDERS_SINCE_LAST] * pair[SHARE_OF_ORDERS];
        cross[3] = pair[DECAYED_45D] * of_item[ITEM_TREND_28D];
        cross[4] = pair[ORDERS] / at_least_float(of_user[USER_ORDERS], 1.0f);
        cross[5] = pair[ORDERS_56D] / at_least_float(of_user[USER_ORDERS_56D], 1.0f);
        cross[6] = of_item[ITEM_UNIT_PRICE_28D] / pair[UNIT_PRICE];
        cross[7] = of_item[ITEM_DISCOUNT_28D] - pair[DISCOUNT];
        cross[8] = of_item[ITEM_DISCOUNT_28D] - of_user[USER_DISCOUNT];
    }
}

/* ---- Python --------------------------------------------------------------------------------------------------------- */

static int within_range(const int64_t *values, Py_ssize_t n, int64_t low, int64_t end)
{
    int ok = 1;
    for (Py_ssize_t i = 0; i < n; i++) ok &= values[i] >= low && values[i] < end;
    return ok;
}

static PyObject *py_features(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_ARRAYS] = {0};
    enum { PAIR_KEYS_, PAIRS_, USERS_, GROUP_KEYS_, GROUPS_, ITEMS_, CODES_, TRENDS_ = CODES_ + LEVELS,
           ROWS_ = TRENDS_ + LEVELS, IDS_, OUT_ };
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*y*y*y*y*y*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7,
                          b + 8, b + 9, b + 10, b + 11, b + 12, b + 13, b + 14)) {
        return NULL;
    }
    Lookup in = {b[PAIR_KEYS_].buf, b[GROUP_KEYS_].buf, b[ROWS_].buf, b[IDS_].buf, b[PAIRS_].buf, b[USERS_].buf,
                 b[GROUPS_].buf, b[ITEMS_].buf, {NULL}, {NULL}, b[PAIR_KEYS_].len / 8, b[GROUP_KEYS_].len / 8,
                 b[ITEMS_].len / (ITEM * 4), {0}, b[IDS_].len / 8};
    int fits = b[PAIRS_].len == (in.n_pairs + 1) * PAIR * 4 && b[GROUPS_].len == (in.n_groups + 1) * GROUP * 4 &&
               b[ITEMS_].len == in.n_items * ITEM * 4 && b[ROWS_].len == b[IDS_].len &&
               b[OUT_].len == in.n * FEATURES * 4;
    for (int level = 0; level < LEVELS; level++) {
        in.codes[level] = b[CODES_ + level].buf;
        in.trends[level] = b[TRENDS_ + level].buf;
        in.n_trends[level] = b[TRENDS_ + level].len / 4;
        fits = fits && b[CODES_ + level].len == in.n_items * 8;
    }
    fits = fits && within_range(in.rows, in.n, 0, b[USERS_].len / (USER * 4)) &&
           within_range(in.ids, in.n, 0, in.n_items);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        look_up(&in, b[OUT_].buf);
        Py_END_ALLOW_THREADS
    } else {
        misfit();
    }
    release(b);
    if (!fits) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"features", py_features, METH_VARARGS, "Fill the features of pairs of customer and item."}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_features", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__features(void) { return PyModule_Create(&module); }
