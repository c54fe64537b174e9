/* Tables of purchase histories, and the features that are looked up in them: `history_tables.py` and `features.py` have
 * the same in NumPy and say what each column is.
 *
 * NumPy takes .8 ms for the 60 steps of one customer, whatever they have bought; this takes some 30 µs. Every sum is added
 * up in the order of the rows, and in double precision, so that both have the same bits. Powers of two come from NumPy,
 * since those of the C library may differ in the last bit.
 */
#include "_columns.h"

static const double DAYS[WINDOWS] = {28, 56, 112};

static double at_least(double value, double low) { return value < low ? low : value; } /* NaN stays */
static double ratio(double part, double whole) { return whole > 0 ? part / whole : NAN; }

/* ---- sorting -------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t key;
    uint32_t row;
} Entry;

/* Sort entries by key, stably; `other` has room for as many. */
static void sort_entries(Entry *entries, Entry *other, Py_ssize_t n)
{
    uint64_t differ = 0;
    int sorted = 1;
    for (Py_ssize_t i = 1; i < n; i++) {
        sorted &= entries[i - 1].key <= entries[i].key;
        differ |= entries[i - 1].key ^ entries[i].key;
    }
    if (sorted) return;
    if (n < 32) {
        for (Py_ssize_t i = 1; i < n; i++) {
            const Entry moved = entries[i];
            Py_ssize_t j = i;
            for (; j > 0 && entries[j - 1].key > moved.key; j--) entries[j] = entries[j - 1];
            entries[j] = moved;
        }
        return;
    }
    Entry *from = entries, *to = other;
    for (int shift = 0; shift < 64 && differ >> shift; shift += 8) { /* digits that all keys share need no pass */
        if (!((differ >> shift) & 255)) continue;
        Py_ssize_t places[256] = {0};
        for (Py_ssize_t i = 0; i < n; i++) places[(from[i].key >> shift) & 255]++;
        Py_ssize_t before = 0;
        for (int digit = 0; digit < 256; digit++) {
            const Py_ssize_t count = places[digit];
            places[digit] = before;
            before += count;
        }
        for (Py_ssize_t i = 0; i < n; i++) to[places[(from[i].key >> shift) & 255]++] = from[i];
        Entry *const swapped = from;
        from = to;
        to = swapped;
    }
    if (from != entries) memcpy(entries, from, sizeof(Entry) * n);
}

/* Bits of a number that are ordered as the numbers are. */
static uint32_t ordered_bits(float value)
{
    uint32_t bits;
    value += 0.0f; /* −0 is 0 */
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* ---- histories ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const int32_t *users, *items, *orders;                /* (n,); orders may be missing */
    const float *ages, *quantities, *amounts, *discounts; /* (n,); the last three may be missing */
    const double *decays;                                 /* (n, HALF_LIVES): 2 ** (−age / half-life) */
    const double *order_decays;                           /* (order_powers,): 2 ** (−place / 8); 0 from there on */
    const int64_t *codes[LEVELS];                         /* (n_items,) */
    Py_ssize_t n, n_users, n_items, order_powers;
} Input;

typedef struct {
    int64_t *pair_keys, *group_keys;
    float *pairs, *users, *groups;
    Py_ssize_t n_pairs, n_groups;
    int misfit; /* whether an item has a group out of range */
} Output;

typedef struct {
    Entry *entries, *grouped, *other; /* (n,) */
    uint32_t *lines;                  /* (n,): lines by user */
    uint32_t *place;      /* (n,): of each line of one customer, the place of its order; 0 is the youngest order */
    uint32_t *order_line; /* (n,): youngest line of each order of one customer, by place */
    uint32_t *order_of;   /* (n,): the same by order number, and then the place by order number */
    int32_t *items_of;    /* (n_items,): number of items of one customer in each group; 0 between uses */
    Py_ssize_t *starts;   /* (n_users + 1,): first line of each user in `lines` */
} Scratch;

typedef struct {
    double paid, units, off, full;
} Payments;

static Payments payments_of(const Input *in, uint32_t line)
{
    const double amount = in->amounts ? in->amounts[line] : NAN, off = in->discounts ? in->discounts[line] : NAN;
    const double units = in->quantities ? in->quantities[line] : 1.0;
    const int priced = amount > 0 && units > 0, told = amount >= 0 && off >= 0;
    return (Payments){priced ? amount : 0, priced ? units : 0, told ? off : 0, told ? amount + off : 0};
}

static void add_payments(Payments *sum, Payments more)
{
    sum->paid += more.paid, sum->units += more.units, sum->off += more.off, sum->full += more.full;
}

/* Sum of known values over the lines of an order, and whether any is known. */
typedef struct {
    double sum;
    int known;
} Known;

static void add_known(Known *to, const float *values, uint32_t line)
{
    if (values && isfinite(values[line])) to->sum += values[line], to->known = 1;
}

/* Ages of a run of orders, youngest first, one after the other. */
typedef struct {
    double first, second, third, last, squares;
    Py_ssize_t count;
} Run;

static void add_age(Run *run, double age)
{
    if (run->count) {
        const double gap = age - run->last;
        run->squares += gap * gap;
    }
    if (run->count == 0) run->first = age;
    if (run->count == 1) run->second = age;
    if (run->count == 2) run->third = age;
    run->last = age;
    run->count++;
}

static double mean_gap(const Run *run) { return run->count > 1 ? (run->last - run->first) / (run->count - 1) : NAN; }

/* Number the orders of the `m` lines of a customer from the youngest on, and return how many there are. */
static Py_ssize_t number_orders(const Input *in, const Scratch *s, const uint32_t *lines, Py_ssize_t m)
{
    int64_t lowest = INT64_MAX;
    for (Py_ssize_t i = 0; i < m; i++) {
        const int64_t name = in->orders ? in->orders[lines[i]] : (int64_t)floor((double)in->ages[lines[i]]);
        s->entries[i] = (Entry){(uint64_t)name, (uint32_t)i};
        if (name < lowest) lowest = name;
    }
    for (Py_ssize_t i = 0; i < m; i++) s->entries[i].key -= (uint64_t)lowest;
    sort_entries(s->entries, s->other, m);
    Py_ssize_t orders = 0;
    for (Py_ssize_t i = 0; i < m; i++) {
        const uint32_t row = s->entries[i].row, line = lines[row];
        if (i == 0 || s->entries[i].key != s->entries[i - 1].key) s->order_of[orders++] = line;
        else if (in->ages[line] < in->ages[s->order_of[orders - 1]]) s->order_of[orders - 1] = line;
        s->place[row] = (uint32_t)(orders - 1); /* by name; below by age */
    }
    for (Py_ssize_t o = 0; o < orders; o++) s->entries[o] = (Entry){ordered_bits(in->ages[s->order_of[o]]), (uint32_t)o};
    sort_entries(s->entries, s->other, orders);
    for (Py_ssize_t p = 0; p < orders; p++) s->order_line[p] = s->order_of[s->entries[p].row];
    for (Py_ssize_t p = 0; p < orders; p++) s->order_of[s->entries[p].row] = (uint32_t)p;
    for (Py_ssize_t i = 0; i < m; i++) s->place[i] = s->order_of[s->place[i]];
    return orders;
}

/* Totals of one customer over their pairs. */
typedef struct {
    double events, recent_28d, recent_56d, distinct, new_items, quantity, amount, quantities, amounts;
} Totals;

/* Write the columns of one pair from its `m` lines, sorted by the place of their order. */
static void write_pair(const Input *in, const Scratch *s, const uint32_t *lines, const Entry *entries, Py_ssize_t m,
                       uint64_t span, float *out, Totals *totals)
{
    Run run = {0};
    double within[WINDOWS] = {0}, decayed[HALF_LIVES] = {0}, decayed_orders = 0;
    Known quantity = {0}, amount = {0};
    Py_ssize_t quantities = 0, amounts = 0;
    Payments all = {0}, latest = {0};
    uint64_t place = 0, first_place = 0;
    for (Py_ssize_t i = 0; i < m;) {
        place = entries[i].key % span;
        const uint32_t youngest = s->order_line[place];
        const double age = in->ages[youngest];
        if (!run.count) first_place = place;
        add_age(&run, age);
        for (int w = 0; w < WINDOWS; w++) within[w] += age <= DAYS[w];
        for (int h = 0; h < HALF_LIVES; h++) decayed[h] += in->decays[(Py_ssize_t)youngest * HALF_LIVES + h];
        decayed_orders += (Py_ssize_t)place < in->order_powers ? in->order_decays[place] : 0.0;
        Known units = {0}, paid = {0};
        Payments order = {0};
        const uint64_t key = entries[i].key;
        for (; i < m && entries[i].key == key; i++) {
            const uint32_t line = lines[entries[i].row];
            add_known(&units, in->quantities, line);
            add_known(&paid, in->amounts, line);
            add_payments(&order, payments_of(in, line));
        }
        quantity.sum += units.sum, quantities += units.known;
        amount.sum += paid.sum, amounts += paid.known;
        add_payments(&all, order);
        if (run.count == 1) latest = order;
    }
    const double count = (double)run.count, several = run.count > 1 ? count - 1 : 1, mean = mean_gap(&run);
    const double steady = at_least(mean, 0.5); /* two orders on one day are not an interval */
    const double spread = sqrt(at_least(run.squares / several - mean * mean, 0.0));
    int c = 0;
    for (int w = 0; w < WINDOWS; w++) out[c++] = (float)within[w];
    out[c++] = (float)count;
    for (int h = 0; h < HALF_LIVES; h++) out[c++] = (float)decayed[h];
    out[c++] = (float)run.first;
    out[c++] = (float)run.last;
    out[c++] = (float)(run.count > 1 ? run.second - run.first : NAN);
    out[c++] = (float)(run.count > 2 ? run.third - run.second : NAN);
    out[c++] = (float)mean;
    out[c++] = (float)(run.count > 2 ? spread / steady : NAN);
    out[c++] = (float)(run.first / steady);
    out[c++] = (float)(count / at_least(run.last, 7.0));
    out[c++] = (float)first_place;
    out[c++] = (float)(count / ((double)place + 1.0));
    out[c++] = (float)decayed_orders;
    out[c++] = (float)(quantities ? quantity.sum / (double)quantities : NAN);
    out[c++] = (float)(amounts ? amount.sum / (double)amounts : NAN);
    out[c++] = (float)ratio(all.paid, all.units);
    out[c++] = (float)ratio(all.off, all.full);
    out[c++] = (float)ratio(latest.off, latest.full);
    totals->events += count, totals->distinct += 1;
    totals->recent_28d += within[0], totals->recent_56d += within[1];
    totals->new_items += out[DAYS_SINCE_FIRST] <= RECENT_DAYS;
    if (isfinite(out[QUANTITY])) totals->quantity += out[QUANTITY], totals->quantities += 1;
    if (isfinite(out[AMOUNT])) totals->amount += out[AMOUNT], totals->amounts += 1;
}

/* Write the rows of the groups of one level, from the `m` lines of a customer, sorted by item and place. */
static void write_groups(const Input *in, const Scratch *s, Py_ssize_t m, uint64_t span, int level, Py_ssize_t user,
                         Output *out)
{
    Py_ssize_t known = 0;
    int64_t item_before = -1;
    for (Py_ssize_t i = 0; i < m; i++) {
        if (i && s->entries[i].key == s->entries[i - 1].key) continue; /* another line of the same order */
        const int64_t item = (int64_t)(s->entries[i].key / span), code = in->codes[level][item];
        if (code < 0) continue;
        if (code >= in->n_items) {
            out->misfit = 1;
            continue;
        }
        if (item != item_before) s->items_of[code]++;
        item_before = item;
        s->grouped[known++].key = (uint64_t)code * span + s->entries[i].key % span;
    }
    sort_entries(s->grouped, s->other, known);
    for (Py_ssize_t i = 0; i < known;) {
        const int64_t code = (int64_t)(s->grouped[i].key / span);
        const uint64_t end = ((uint64_t)code + 1) * span;
        Run run = {0};
        double decayed = 0;
        for (; i < known && s->grouped[i].key < end; i++) {
            if (run.count && s->grouped[i].key == s->grouped[i - 1].key) continue; /* another item in the same order */
            const uint32_t youngest = s->order_line[s->grouped[i].key % span];
            add_age(&run, in->ages[youngest]);
            decayed += in->decays[(Py_ssize_t)youngest * HALF_LIVES + HALF_LIVES - 1];
        }
        const double mean = mean_gap(&run);
        float *row = out->groups + out->n_groups * GROUP;
        row[0] = (float)decayed;
        row[1] = (float)run.first;
        row[2] = (float)mean;
        row[3] = (float)(run.first / at_least(mean, 0.5));
        row[4] = (float)s->items_of[code];
        s->items_of[code] = 0;
        out->group_keys[out->n_groups++] = (user * LEVELS + level) * in->n_items + code;
    }
}

static void write_user(const Input *in, const Scratch *s, const uint32_t *lines, Py_ssize_t m, Py_ssize_t orders,
                       const Totals *t, float *out)
{
    double within[WINDOWS] = {0};
    Payments all = {0};
    for (Py_ssize_t p = 0; p < orders; p++)
        for (int w = 0; w < WINDOWS; w++) within[w] += in->ages[s->order_line[p]] <= DAYS[w];
    for (Py_ssize_t i = 0; i < m; i++) add_payments(&all, payments_of(in, lines[i]));
    const double youngest = orders ? in->ages[s->order_line[0]] : NAN;
    const double oldest = orders ? in->ages[s->order_line[orders - 1]] : NAN, n = (double)orders;
    int c = 0;
    for (int w = 0; w < WINDOWS; w++) out[c++] = (float)within[w];
    out[c++] = (float)n;
    out[c++] = (float)youngest;
    out[c++] = (float)oldest;
    out[c++] = (float)((oldest - youngest) / at_least(n - 1, 1));
    out[c++] = (float)t->recent_28d;
    out[c++] = (float)t->recent_56d;
    out[c++] = (float)(t->events / at_least(n, 1));
    out[c++] = (float)t->distinct;
    out[c++] = (float)(1 - t->distinct / at_least(t->events, 1));
    out[c++] = (float)(1 - t->new_items / at_least(t->recent_28d, 1));
    out[c++] = (float)(t->quantities > 0 ? t->quantity / t->quantities : NAN);
    out[c++] = (float)(t->amounts > 0 ? t->amount / t->amounts : NAN);
    out[c++] = (float)ratio(all.off, all.full);
}

static void build(const Input *in, const Scratch *s, Output *out)
{
    memset(s->starts, 0, sizeof(Py_ssize_t) * (in->n_users + 1));
    for (Py_ssize_t i = 0; i < in->n; i++) s->starts[in->users[i] + 1]++;
    for (Py_ssize_t u = 0; u < in->n_users; u++) s->starts[u + 1] += s->starts[u];
    for (Py_ssize_t i = 0; i < in->n; i++) s->lines[s->starts[in->users[i]]++] = (uint32_t)i;
    for (Py_ssize_t u = in->n_users; u > 0; u--) s->starts[u] = s->starts[u - 1]; /* each was moved to the next */
    s->starts[0] = 0;
    for (Py_ssize_t user = 0; user < in->n_users; user++) {
        const uint32_t *lines = s->lines + s->starts[user];
        const Py_ssize_t m = s->starts[user + 1] - s->starts[user];
        const Py_ssize_t orders = number_orders(in, s, lines, m);
        const uint64_t span = orders ? (uint64_t)orders : 1;
        for (Py_ssize_t i = 0; i < m; i++)
            s->entries[i] = (Entry){(uint64_t)in->items[lines[i]] * span + s->place[i], (uint32_t)i};
        sort_entries(s->entries, s->other, m);
        Totals totals = {0};
        for (Py_ssize_t first = 0, end = 0; first < m; first = end) {
            const uint64_t item = s->entries[first].key / span;
            while (end < m && s->entries[end].key < (item + 1) * span) end++;
            write_pair(in, s, lines, s->entries + first, end - first, span, out->pairs + out->n_pairs * PAIR, &totals);
            out->pair_keys[out->n_pairs++] = (int64_t)user * in->n_items + (int64_t)item;
        }
        for (int level = 0; level < LEVELS; level++) write_groups(in, s, m, span, level, user, out);
        write_user(in, s, lines, m, orders, &totals, out->users + user * USER);
    }
}

/* ---- Python --------------------------------------------------------------------------------------------------------- */

static int within_range(const int32_t *values, Py_ssize_t n, int64_t end)
{
    int ok = 1;
    for (Py_ssize_t i = 0; i < n; i++) ok &= values[i] >= 0 && values[i] < end;
    return ok;
}

static PyObject *py_tables(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_ARRAYS] = {0};
    enum { USERS_, ITEMS_, AGES_, ORDERS_, QUANTITIES_, AMOUNTS_, DISCOUNTS_, DECAYS_, ORDER_DECAYS_, CODES_,
           PAIR_KEYS_ = CODES_ + LEVELS, PAIRS_, USER_ROWS_, GROUP_KEYS_, GROUPS_ };
    if (!PyArg_ParseTuple(args, "y*y*y*z*z*z*z*y*y*y*y*y*w*w*w*w*w*", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7,
                          b + 8, b + 9, b + 10, b + 11, b + 12, b + 13, b + 14, b + 15, b + 16)) {
        return NULL; /* it has released what it had */
    }
    Input in = {b[USERS_].buf, b[ITEMS_].buf, b[ORDERS_].buf, b[AGES_].buf, b[QUANTITIES_].buf, b[AMOUNTS_].buf,
                b[DISCOUNTS_].buf, b[DECAYS_].buf, b[ORDER_DECAYS_].buf, {NULL}, b[USERS_].len / 4,
                b[USER_ROWS_].len / (USER * 4), b[CODES_].len / 8, b[ORDER_DECAYS_].len / 8};
    Output out = {b[PAIR_KEYS_].buf, b[GROUP_KEYS_].buf, b[PAIRS_].buf, b[USER_ROWS_].buf, b[GROUPS_].buf, 0, 0, 0};
    int fits = in.n < UINT32_MAX && b[PAIR_KEYS_].len >= in.n * 8 && b[PAIRS_].len >= in.n * PAIR * 4 &&
               b[GROUP_KEYS_].len >= in.n * LEVELS * 8 && b[GROUPS_].len >= in.n * LEVELS * GROUP * 4 &&
               b[DECAYS_].len == in.n * HALF_LIVES * 8;
    for (int i = ITEMS_; i <= DISCOUNTS_; i++) fits = fits && (!b[i].buf || b[i].len == in.n * 4);
    for (int level = 0; level < LEVELS; level++) {
        in.codes[level] = b[CODES_ + level].buf;
        fits = fits && b[CODES_ + level].len == in.n_items * 8;
    }
    fits = fits && within_range(in.users, in.n, in.n_users) && within_range(in.items, in.n, in.n_items);
    PyObject *result = NULL;
    if (!fits) {
        misfit();
    } else {
        const size_t n = (size_t)in.n + 1;
        Scratch s = {PyMem_Malloc(n * sizeof(Entry)),    PyMem_Malloc(n * sizeof(Entry)),
                     PyMem_Malloc(n * sizeof(Entry)),    PyMem_Malloc(n * sizeof(uint32_t)),
                     PyMem_Malloc(n * sizeof(uint32_t)), PyMem_Malloc(n * sizeof(uint32_t)),
                     PyMem_Malloc(n * sizeof(uint32_t)), PyMem_Calloc((size_t)in.n_items + 1, sizeof(int32_t)),
                     PyMem_Malloc(((size_t)in.n_users + 1) * sizeof(Py_ssize_t))};
        void *held[] = {s.entries, s.grouped, s.other, s.lines, s.place, s.order_line, s.order_of, s.items_of, s.starts};
        int enough = 1;
        for (size_t i = 0; i < sizeof held / sizeof *held; i++) enough = enough && held[i];
        if (enough) {
            Py_BEGIN_ALLOW_THREADS
            build(&in, &s, &out);
            Py_END_ALLOW_THREADS
            result = out.misfit ? misfit() : Py_BuildValue("nn", out.n_pairs, out.n_groups);
        } else {
            PyErr_NoMemory();
        }
        for (size_t i = 0; i < sizeof held / sizeof *held; i++) PyMem_Free(held[i]);
    }
    release(b);
    return result;
}

static PyMethodDef methods[] = {{"tables", py_tables, METH_VARARGS, "Fill the tables of `Histories`; returns the numbers of pairs and of groups."}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_histories", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__histories(void) { return PyModule_Create(&module); }
