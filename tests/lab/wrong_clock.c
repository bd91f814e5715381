/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Read before the C library (LD_PRELOAD of ld.so(8)): a wall clock that is wrong by
   as many seconds as the file WRONG_CLOCK holds, 8 bytes, at any moment.  The file is
   mapped once, so a process in a sandbox can be told too.  Nothing is included,
   which takes no headers to compile. */

typedef long word;
struct moment { word seconds, parts; };

extern char *getenv(const char *);
extern void *dlsym(void *, const char *);
extern int open(const char *, int, ...), close(int);
extern void *mmap(void *, unsigned long, int, int, int, word);

static int (*right)(int, struct moment *);
static volatile word none, *wrong_by;

static void begin(void)
{
    void *next = (void *)-1;                    /* RTLD_NEXT */
    int file = open(getenv("WRONG_CLOCK"), 0);  /* O_RDONLY */
    void *found = mmap(0, 8, 1, 1, file, 0);    /* PROT_READ, MAP_SHARED */
    close(file);
    wrong_by = found == (void *)-1 ? &none : found;
    right = dlsym(next, "clock_gettime");
}

int clock_gettime(int which, struct moment *now)
{
    if (!right)
        begin();
    int failed = right(which, now);
    if (!failed && (which == 0 || which == 5))  /* CLOCK_REALTIME, and its COARSE */
        now->seconds += *wrong_by;
    return failed;
}

int gettimeofday(struct moment *now, void *zone)
{
    int failed = clock_gettime(0, now);
    now->parts /= 1000;
    return failed;
}

word time(word *there)
{
    struct moment now;
    clock_gettime(0, &now);
    if (there)
        *there = now.seconds;
    return now.seconds;
}
