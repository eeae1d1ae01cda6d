/* What a build does to every picture's pixels, in vectors of integers.

   Gives Pillow's bytes: its resize works in integers too (22-bit weights; a horizontal pass, uint8
   between the passes, a vertical pass; src/libImaging/Resample.c), and its BLUR is a 5x5 ring of
   ones over 16 that leaves a border of two pixels. Its grey is a sum of 16-bit weights (Convert.c),
   and a mean over a block is its sum times the reciprocal of its pixels (Reduce.c). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

enum { WEIGHT_BITS = 22, ROWS = 16 };

/* For each output pixel the first input pixel under it, how many there are, and their weights. */
typedef struct {
    Py_buffer first, count, weights;
} Taps;

static Py_ssize_t size(const Taps *taps) { return taps->first.len / (Py_ssize_t)sizeof(int32_t); }

/* A weighted sum, rounded. */
static inline uint32_t level(uint32_t sum) {
    int32_t value = (int32_t)(sum + (1u << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

/* ROWS neighbouring pixels of output pixel i: weighted sums of rows. A pixel's red is lowest, then
   green and blue, and zero.

   It is weighed as a whole, without its red, and without its green. Modulo 2**32, what one sum is
   above 256 times the next is that of a colour. */
static inline void weigh(const uint32_t *restrict rows, Py_ssize_t stride, const Taps *taps,
                         Py_ssize_t i, uint32_t *restrict out) {
    const int32_t *weights = taps->weights.buf;
    weights += i * (taps->weights.len / taps->first.len);
    rows += ((const int32_t *)taps->first.buf)[i] * stride;
    int32_t count = ((const int32_t *)taps->count.buf)[i];
    uint32_t all[ROWS] = {0}, green_blue[ROWS] = {0}, blue[ROWS] = {0};
    for (int32_t k = 0; k < count; k++) {
        uint32_t weight = weights[k];
        const uint32_t *row = rows + k * stride;
/* Unrolled before it is looked at for vectors, as a short loop is, it would not become any. */
#pragma GCC unroll 1
        for (int j = 0; j < ROWS; j++) {
            uint32_t pixel = row[j];
            all[j] += weight * pixel;
            green_blue[j] += weight * (pixel >> 8);
            blue[j] += weight * (pixel >> 16);
        }
    }
#pragma GCC unroll 1
    for (int j = 0; j < ROWS; j++)
        out[j] = level(all[j] - (green_blue[j] << 8)) |
                 level(green_blue[j] - (blue[j] << 8)) << 8 | level(blue[j]) << 16;
}

/* A picture on its way to one size, in pixels of four bytes. */
typedef struct {
    Taps x, y;
    uint32_t *narrow; /* [height + ROWS][size(x)]: whole blocks of rows are written, and read */
} Shrunk;

/* in [height][width][3] -> narrow of each size; block [width][ROWS]. */
FOR_EACH_CPU
static void horizontal(const uint8_t *in, Py_ssize_t width, Py_ssize_t height, Shrunk *sizes,
                       Py_ssize_t count, uint32_t *block) {
    for (Py_ssize_t top = 0; top < height; top += ROWS) {
        Py_ssize_t rows = height - top < ROWS ? height - top : ROWS;
        for (Py_ssize_t y = 0; y < rows; y++)
            for (Py_ssize_t x = 0; x < width; x++, in += 3)
                block[x * ROWS + y] = in[0] | in[1] << 8 | in[2] << 16;
        for (Shrunk *to = sizes; to < sizes + count; to++)
            for (Py_ssize_t i = 0; i < size(&to->x); i++) {
                uint32_t pixels[ROWS];
                weigh(block, ROWS, &to->x, i, pixels);
                for (Py_ssize_t y = 0; y < ROWS; y++)
                    to->narrow[(top + y) * size(&to->x) + i] = pixels[y];
            }
    }
}

/* in [height][width] -> out [size(taps)][width][3]; ROWS pixels behind in are read. */
FOR_EACH_CPU
static void vertical(const uint32_t *in, Py_ssize_t width, const Taps *taps, uint8_t *out) {
    for (Py_ssize_t i = 0; i < size(taps); i++)
        for (Py_ssize_t left = 0; left < width; left += ROWS) {
            uint32_t pixels[ROWS];
            weigh(in + left, width, taps, i, pixels);
            Py_ssize_t count = width - left < ROWS ? width - left : ROWS;
            for (Py_ssize_t x = 0; x < count; x++, out += 3)
                for (int c = 0; c < 3; c++) out[c] = pixels[x] >> 8 * c;
        }
}

/* in and out [height][width][3], at least 5x5 */
FOR_EACH_CPU
static void ring(const uint8_t *restrict in, Py_ssize_t width, Py_ssize_t height,
                 uint8_t *restrict out) {
    Py_ssize_t row = 3 * width;
    for (Py_ssize_t y = 2; y < height - 2; y++) {
        const uint8_t *a = in + (y - 2) * row, *b = a + row, *c = b + row, *d = c + row,
                      *e = d + row;
        for (Py_ssize_t x = 6; x < row - 6; x++) {
            uint16_t sum = 8;
            for (int k = -6; k <= 6; k += 3) sum += a[x + k] + e[x + k];
            sum += b[x - 6] + b[x + 6] + c[x - 6] + c[x + 6] + d[x - 6] + d[x + 6];
            out[y * row + x] = sum >> 4;
        }
    }
}

/* in [height][width][3] -> means of grey over blocks of step_x by step_y pixels, smaller at the
   right and below; column [width]. */
FOR_EACH_CPU
static void grey_means(const uint8_t *in, Py_ssize_t width, Py_ssize_t height, Py_ssize_t step_x,
                       Py_ssize_t step_y, uint32_t *restrict column, uint8_t *out) {
    for (Py_ssize_t top = 0; top < height; top += step_y) {
        Py_ssize_t rows = height - top < step_y ? height - top : step_y;
        memset(column, 0, width * sizeof *column);
        for (Py_ssize_t y = 0; y < rows; y++, in += 3 * width)
            for (Py_ssize_t x = 0; x < width; x++)
                column[x] += (in[3 * x] * 19595u + in[3 * x + 1] * 38470u + in[3 * x + 2] * 7471u +
                              0x8000) >> 16;
        for (Py_ssize_t left = 0; left < width; left += step_x) {
            Py_ssize_t columns = width - left < step_x ? width - left : step_x;
            uint32_t pixels = rows * columns, sum = pixels / 2;
            for (Py_ssize_t x = left; x < left + columns; x++) sum += column[x];
            uint32_t reciprocal = (float)(1u << 31) * 2 / (pixels << 8);
            *out++ = sum * reciprocal >> 24;
        }
    }
}

static PyObject *grey(PyObject *module, PyObject *args) {
    Py_buffer in;
    Py_ssize_t width, height, x, y;
    if (!PyArg_ParseTuple(args, "y*nnnn", &in, &width, &height, &x, &y)) return NULL;
    PyObject *out = NULL;
    uint32_t *column = NULL;
    if (in.len != 3 * width * height || x < 1 || y < 1) {
        PyErr_SetString(PyExc_ValueError, "the picture is not [height, width, 3]");
        goto done;
    }
    column = PyMem_Malloc(width * sizeof *column);
    out = column ? PyBytes_FromStringAndSize(NULL, ((width + x - 1) / x) * ((height + y - 1) / y))
                 : PyErr_NoMemory();
    if (out) grey_means(in.buf, width, height, x, y, column, (uint8_t *)PyBytes_AS_STRING(out));
done:
    PyMem_Free(column);
    PyBuffer_Release(&in);
    return out;
}

static int parse_size(PyObject *taps, Py_ssize_t height, Shrunk *to) {
    if (!PyArg_ParseTuple(taps, "(y*y*y*)(y*y*y*)", &to->x.first, &to->x.count, &to->x.weights,
                          &to->y.first, &to->y.count, &to->y.weights))
        return 0;
    to->narrow = PyMem_Calloc((height + ROWS) * size(&to->x), sizeof *to->narrow);
    if (!to->narrow) PyErr_NoMemory();
    return to->narrow != NULL;
}

static PyObject *finish(const Shrunk *to) {
    PyObject *out = PyBytes_FromStringAndSize(NULL, 3 * size(&to->x) * size(&to->y));
    if (out)
        vertical(to->narrow, size(&to->x), &to->y, (uint8_t *)PyBytes_AS_STRING(out));
    return out;
}

static PyObject *resize(PyObject *module, PyObject *args) {
    Py_buffer in;
    Py_ssize_t width, height;
    PyObject *taps, *out = NULL;
    if (!PyArg_ParseTuple(args, "y*nnO!", &in, &width, &height, &PyTuple_Type, &taps)) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(taps), parsed = 0;
    uint32_t *block = PyMem_Calloc(width * ROWS, sizeof *block);
    Shrunk *sizes = PyMem_Calloc(count, sizeof *sizes);
    if (!block || !sizes)
        PyErr_NoMemory();
    else if (in.len != 3 * width * height)
        PyErr_SetString(PyExc_ValueError, "the picture is not [height, width, 3]");
    else {
        while (parsed < count && parse_size(PyTuple_GET_ITEM(taps, parsed), height, sizes + parsed))
            parsed++;
        if (parsed == count && (out = PyTuple_New(count)))
            horizontal(in.buf, width, height, sizes, count, block);
    }
    for (Py_ssize_t i = 0; sizes && i < count; i++) {
        PyObject *small = out ? finish(sizes + i) : NULL;
        if (small)
            PyTuple_SET_ITEM(out, i, small);
        else
            Py_CLEAR(out);
        PyMem_Free(sizes[i].narrow);
        Taps *both[] = {&sizes[i].x, &sizes[i].y};
        for (int k = 0; k < 2; k++) {
            PyBuffer_Release(&both[k]->first);
            PyBuffer_Release(&both[k]->count);
            PyBuffer_Release(&both[k]->weights);
        }
    }
    PyMem_Free(sizes);
    PyMem_Free(block);
    PyBuffer_Release(&in);
    return out;
}

static PyObject *blur(PyObject *module, PyObject *args) {
    Py_buffer in;
    Py_ssize_t width, height;
    if (!PyArg_ParseTuple(args, "y*nn", &in, &width, &height)) return NULL;
    PyObject *out = NULL;
    if (in.len != 3 * width * height)
        PyErr_SetString(PyExc_ValueError, "the picture is not [height, width, 3]");
    else
        out = PyBytes_FromStringAndSize(in.buf, in.len);
    if (out && width >= 5 && height >= 5)
        ring(in.buf, width, height, (uint8_t *)PyBytes_AS_STRING(out));
    PyBuffer_Release(&in);
    return out;
}

static PyMethodDef methods[] = {
    {"resize", resize, METH_VARARGS,
     "resize(rgb, width, height, (taps of x, taps of y) a size): bytes [H, W, 3] a size."},
    {"blur", blur, METH_VARARGS, "blur(rgb, width, height): bytes [H, W, 3]."},
    {"grey", grey, METH_VARARGS,
     "grey(rgb, width, height, step x, step y): means of blocks, bytes [rows, columns]."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_pixels", NULL, 0, methods};

PyMODINIT_FUNC PyInit__pixels(void) { return PyModule_Create(&definition); }
