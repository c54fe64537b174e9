/* Numbers and places of the columns in the tables of `histories.py` and `item_statistics.py`, and the arguments from Python. */
#ifndef QIANMIAN_COLUMNS_H
#define QIANMIAN_COLUMNS_H

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { WINDOWS = 3, HALF_LIVES = 4, LEVELS = 3, RECENT_DAYS = 28, PAIR = 24, USER = 16, GROUP = 5, ITEM = 22, CROSS = 12 };
enum { FEATURES = PAIR + USER + ITEM + LEVELS * (GROUP + 1) + CROSS };

/* Columns of a pair of customer and item that other columns are computed from. */
enum { ORDERS_56D = 1, ORDERS = 3, DECAYED_45D = 6, DECAYED_120D = 7, DAYS_SINCE_LAST = 8, DAYS_SINCE_FIRST = 9,
       ORDERS_SINCE_LAST = 16, SHARE_OF_ORDERS = 17, QUANTITY = 19, AMOUNT = 20, UNIT_PRICE = 21, DISCOUNT = 22 };
/* The same of a customer and of an item. */
enum { USER_ORDERS_56D = 1, USER_ORDERS = 3, USER_DISCOUNT = 15 };
enum { ITEM_TREND_28D = 7, ITEM_GAP = 12, ITEM_UNIT_PRICE_28D = 17, ITEM_DISCOUNT_28D = 20 };

enum { MOST_ARRAYS = 20 };

static inline void release(Py_buffer *arrays)
{
    for (int i = 0; i < MOST_ARRAYS; i++)
        if (arrays[i].obj) PyBuffer_Release(&arrays[i]);
}

static inline PyObject *misfit(void)
{
    PyErr_SetString(PyExc_ValueError, "the arrays of the histories do not fit together");
    return NULL;
}

#endif
