/*
 * The heart of the tiny guest: it counts, verifies its memory and dirties a set size at a set rate, so that work
 * lost, doubled or stopped by a migration shows.
 *
 * Parameters are words of the kernel command line:
 *
 *   pulse.fill=MIB      memory written once, then verified over and over at CHECK_MIB_S (0)
 *   pulse.size=MIB      memory rewritten round and round; every page is verified before it is rewritten (0)
 *   pulse.rate=MIB      how much of it, per second (0)
 *   pulse.period=MS     time between two heartbeats (100)
 *   pulse.disk=RECORDS  write a record to /dev/vda before every heartbeat, round and round in so many sectors (0)
 *   pulse.ip, .gateway  for the script that starts this program
 *
 * A heartbeat is one line on the console:
 *
 *   pulse count=123 ms=4567 errors=0 dirtied=89
 *
 * count is the number of heartbeats, ms the guest's monotonic clock, errors the wrong pages and failed writes so
 * far, dirtied the pages rewritten so far. A beat that is late by more than LATE_MS is not made up for, so a gap in
 * ms is a pause. While nobody reads the console, lines are left out, but the heart goes on.
 *
 * The console takes: echo TEXT, check (verify all of pulse.fill now), reboot, poweroff, crash. TCP port 7 answers
 * every line with the line, the count, the errors, the MiB of memory that the kernel has, the pages rewritten, and of
 * the records the last one that is known to be on the disk and the boot id that is in it. The power button switches
 * off. A CPU that is plugged in is brought online.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 4096,
    PAGE_WORDS = PAGE_BYTES / sizeof(uint64_t),
    PAGES_PER_MIB = (1 << 20) / PAGE_BYTES,
    SPARE_MIB = 8,          /* left free when memory is filled */
    CHECK_MIB_S = 16,
    CHECK_TICK_MS = 100,
    DIRTY_TICK_MS = 10,
    LATE_MS = 100,
    UNREAD_LIMIT = 2048,    /* bytes waiting on the console; its buffer holds 4096 */
    COMPLAINTS = 8,         /* wrong pages that are described; the others are only counted */
    LINE_LIMIT = 1024,
    SOURCES = 64,
    SECTOR = 512,
    BOOT_ID = 36,
    HOST_NAME = 12,
    FIRMWARE_SELECTOR = 0x510,
    FIRMWARE_DATA = 0x511,
    FIRMWARE_DIRECTORY = 0x19,
    ECHO_PORT = 7,
};

static const uint64_t FILLED_ONCE = UINT64_MAX;     /* generation of the pages of pulse.fill */

static atomic_ulong count, errors, dirtied, durable;
static char boot_id[BOOT_ID] = "-";
static atomic_bool check_now;

/* ---- Console, parameters, clock -------------------------------------------------------------------------------- */

/* One line, in one write: lines of several threads do not mix. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[LINE_LIMIT + 64];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) < 0)
        return;     /* there is no other place to say it */
}

static bool console_is_read(void)
{
    int waiting = 0;
    return ioctl(STDOUT_FILENO, TIOCOUTQ, &waiting) < 0 || waiting < UNREAD_LIMIT;
}

static void leave(int how)
{
    tcdrain(STDOUT_FILENO);
    sync();
    reboot(how);
}

static void fail(const char *what)
{
    say("pulse cannot go on: %s", what);
    leave(RB_POWER_OFF);
    pause();
}

static unsigned long parameter(const char *name, unsigned long otherwise)
{
    static char words[4096];
    if (!words[0]) {
        int file = open("/proc/cmdline", O_RDONLY);
        words[0] = ' ';
        if (file < 0 || read(file, words + 1, sizeof words - 2) < 0)
            fail("/proc/cmdline cannot be read");
        close(file);
    }
    char sought[64];
    snprintf(sought, sizeof sought, " pulse.%s=", name);
    const char *found = strstr(words, sought);
    return found ? strtoul(found + strlen(sought), NULL, 10) : otherwise;
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sleeps until `interval` after the time that was `due` last. What is very late is dropped, not made up for. */
static void pace(long *due, long interval)
{
    long now = milliseconds();
    *due += interval;
    if (*due + LATE_MS < now)
        *due = now;
    if (*due > now) {
        struct timespec until = {*due / 1000, *due % 1000 * 1000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
    }
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

/*
 * A page carries its index and generation in its first two words, and follows from them: no table says what a page
 * should hold. The other words are a sequence of odd stride, different on every page and in every generation:
 * cheap to make and to compare, and of no use to a compressor.
 */
static const uint64_t STRIDE = 0x9e3779b97f4a7c15;

static uint64_t first_word(uint64_t index, uint64_t generation)
{
    uint64_t word = (index + 1) * STRIDE ^ generation * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 30) * 0x94d049bb133111eb;    /* the finalizer of splitmix64 */
    return word ^ word >> 31;
}

static void write_page(uint64_t *page, uint64_t index, uint64_t generation)
{
    uint64_t word = first_word(index, generation);
    page[0] = index;
    page[1] = generation;
    for (int i = 2; i < PAGE_WORDS; i++)
        page[i] = word += STRIDE;
}

/* False, counted and said if the page is not what was last written there. */
static bool verify_page(const uint64_t *page, uint64_t index, uint64_t generation)
{
    uint64_t word = first_word(index, generation);
    uint64_t difference = (page[0] ^ index) | (page[1] ^ generation);
    for (int i = 2; i < PAGE_WORDS; i++)
        difference |= page[i] ^ (word += STRIDE);
    if (difference && atomic_fetch_add(&errors, 1) < COMPLAINTS)
        say("pulse wrong page: index=%lu generation=%lu found index=%lu generation=%lu", index, generation, page[0],
            page[1]);
    return !difference;
}

struct region {
    uint64_t *words;
    uint64_t pages;
};

static uint64_t *page_of(const struct region *region, uint64_t index)
{
    return region->words + index * PAGE_WORDS;
}

static struct region fill(unsigned long mib, uint64_t generation)
{
    struct region region = {NULL, mib * PAGES_PER_MIB};
    struct sysinfo system;
    sysinfo(&system);
    if (mib && mib + SPARE_MIB > system.freeram * system.mem_unit >> 20)
        fail("pulse.fill and pulse.size are more than the free memory");
    region.words = mmap(NULL, mib << 20 | 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region.words == MAP_FAILED)
        fail("memory cannot be mapped");
    for (uint64_t index = 0; index < region.pages; index++)
        write_page(page_of(&region, index), index, generation);
    return region;
}

static void *check(void *argument)
{
    const struct region *region = argument;
    const uint64_t step = CHECK_MIB_S * PAGES_PER_MIB * CHECK_TICK_MS / 1000;
    uint64_t next = 0;
    for (long due = milliseconds();; pace(&due, CHECK_TICK_MS)) {
        bool whole = atomic_exchange(&check_now, false);
        for (uint64_t i = 0; i < (whole ? region->pages : step); i++, next++) {
            uint64_t index = next % region->pages;
            if (!verify_page(page_of(region, index), index, FILLED_ONCE))
                write_page(page_of(region, index), index, FILLED_ONCE);     /* counted once, not in every round */
        }
        if (whole)
            say("pulse checked pages=%lu errors=%lu", region->pages, atomic_load(&errors));
    }
    return NULL;
}

static void *dirty(void *argument)
{
    const struct region *region = argument;
    const uint64_t pages_per_second = parameter("rate", 0) * PAGES_PER_MIB;
    const uint64_t ticks_per_second = 1000 / DIRTY_TICK_MS;
    uint64_t owed = 0, total = 0;
    for (long due = milliseconds();; pace(&due, DIRTY_TICK_MS)) {
        for (owed += pages_per_second; owed >= ticks_per_second; owed -= ticks_per_second) {
            uint64_t index = total % region->pages, generation = total / region->pages;
            verify_page(page_of(region, index), index, generation);
            write_page(page_of(region, index), index, generation + 1);
            atomic_store(&dirtied, ++total);
        }
    }
    return NULL;
}

/* ---- Console, TCP, the power button and new CPUs ------------------------------------------------------------------------- */

struct source {
    enum { CONSOLE, LISTENER, CONNECTION, BUTTON, KERNEL } kind;
    size_t used;
    char text[LINE_LIMIT];
};

static struct source sources[SOURCES];
static struct pollfd polled[SOURCES];   /* of the source at the same index */
static int in_use;

static void add_source(int kind, int descriptor)
{
    if (descriptor < 0)
        return;
    if (in_use == SOURCES) {
        close(descriptor);
        return;
    }
    sources[in_use].kind = kind;
    sources[in_use].used = 0;
    polled[in_use++] = (struct pollfd){.fd = descriptor, .events = POLLIN};
}

static void drop_source(int number)
{
    close(polled[number].fd);
    in_use--;
    memmove(sources + number, sources + number + 1, (in_use - number) * sizeof sources[0]);
    memmove(polled + number, polled + number + 1, (in_use - number) * sizeof polled[0]);
}

static void add_buttons(void)
{
    DIR *directory = opendir("/dev/input");
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (!strncmp(entry->d_name, "event", 5))
            add_source(BUTTON, openat(dirfd(directory), entry->d_name, O_RDONLY | O_NONBLOCK));
}

static int kernel_events(void)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int descriptor = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (bind(descriptor, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        fail("the kernel's events cannot be read");
    return descriptor;
}

static int listener(void)
{
    int one = 1;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(descriptor, (struct sockaddr *)&any, sizeof any) < 0 || listen(descriptor, SOURCES) < 0)
        fail("TCP port 7 cannot be served");
    return descriptor;
}

static int accept_one(int descriptor)
{
    int one = 1;
    int connection = accept4(descriptor, NULL, NULL, SOCK_NONBLOCK);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return connection;
}

static void switch_off(void)
{
    say("pulse powering off");
    leave(RB_POWER_OFF);
}

static void crash(void)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY);
    if (trigger < 0 || write(trigger, "c", 1) < 0)
        say("pulse cannot crash");
}

static void obey(const char *command)
{
    if (!strncmp(command, "echo ", 5))
        say("%s", command + 5);
    else if (!strcmp(command, "check"))
        atomic_store(&check_now, true);
    else if (!strcmp(command, "reboot"))
        leave(RB_AUTOBOOT);
    else if (!strcmp(command, "poweroff"))
        switch_off();
    else if (!strcmp(command, "crash"))
        crash();
    else if (command[0])
        say("pulse does not know '%s'", command);
}

/* Answers one line; false when the other side does not take it. */
static bool answer(int connection, const char *line)
{
    char text[LINE_LIMIT + 256];
    struct sysinfo system;
    sysinfo(&system);
    int length = snprintf(text, sizeof text, "%s count=%lu errors=%lu memory=%lu dirtied=%lu durable=%lu boot=%.*s\n",
                          line, atomic_load(&count), atomic_load(&errors), system.totalram * system.mem_unit >> 20,
                          atomic_load(&dirtied), atomic_load(&durable), BOOT_ID, boot_id);
    return send(connection, text, length, MSG_NOSIGNAL) == length;
}

static bool take_line(int number, char *line)
{
    line[strcspn(line, "\r")] = '\0';
    if (sources[number].kind == CONNECTION)
        return answer(polled[number].fd, line);
    obey(line);
    return true;
}

/* Takes what has arrived, line by line, too long ones in pieces; false when the source is at its end. */
static bool take_lines(int number)
{
    struct source *source = &sources[number];
    ssize_t got = read(polled[number].fd, source->text + source->used, LINE_LIMIT - 1 - source->used);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    source->used += got;
    source->text[source->used] = '\0';
    char *line = source->text;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        if (!take_line(number, line))
            return false;
    }
    source->used -= line - source->text;
    memmove(source->text, line, source->used + 1);
    if (source->used < LINE_LIMIT - 1)
        return true;
    source->used = 0;
    return take_line(number, source->text);
}

static void take_button(int descriptor)
{
    struct input_event event;
    while (read(descriptor, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
            switch_off();
}

/* A CPU that is plugged in waits until somebody wants it: we do. */
static void take_events(int descriptor)
{
    char event[LINE_LIMIT * 4], path[64];
    for (ssize_t got; (got = recv(descriptor, event, sizeof event - 1, 0)) > 0;) {
        unsigned cpu;
        event[got] = '\0';
        if (sscanf(event, "add@/devices/system/cpu/cpu%u", &cpu) != 1)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/online", cpu);
        int file = open(path, O_WRONLY);
        bool done = file >= 0 && write(file, "1", 1) == 1;
        close(file);
        say(done ? "pulse cpu %u is online" : "pulse cannot bring cpu %u online: %m", cpu);
    }
}

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        poll(polled, in_use, -1);
        for (int i = in_use - 1; i >= 0; i--) {
            if (!polled[i].revents)
                continue;
            if (sources[i].kind == LISTENER)
                add_source(CONNECTION, accept_one(polled[i].fd));
            else if (sources[i].kind == BUTTON)
                take_button(polled[i].fd);
            else if (sources[i].kind == KERNEL)
                take_events(polled[i].fd);
            else if (!take_lines(i))
                drop_source(i);
        }
    }
    return NULL;
}

/* ---- Heart ----------------------------------------------------------------------------------------------------- */

/*
 * What QEMU was told about its host with -fw_cfg name=opt/ldoms.lab/host,string=NAME (docs/specs/fw_cfg): the one thing
 * here that is not the guest's own, and that another QEMU answers differently.
 */
static unsigned host_item, host_length;

static void read_firmware(void *into, size_t bytes)
{
    for (uint8_t *byte = into; bytes--; byte++)
        *byte = inb(FIRMWARE_DATA);
}

static void find_host_name(void)
{
    uint32_t entries;
    struct {
        uint32_t bytes;
        uint16_t item, reserved;
        char name[56];
    } entry;
    if (ioperm(FIRMWARE_SELECTOR, 2, 1) < 0)
        fail("what QEMU says of its host cannot be read");
    outw(FIRMWARE_DIRECTORY, FIRMWARE_SELECTOR);
    read_firmware(&entries, sizeof entries);
    for (uint32_t left = be32toh(entries); left; left--) {
        read_firmware(&entry, sizeof entry);
        if (strncmp(entry.name, "opt/ldoms.lab/host", sizeof entry.name))
            continue;
        host_item = be16toh(entry.item);
        host_length = be32toh(entry.bytes);
        if (host_length > HOST_NAME)
            host_length = HOST_NAME;
    }
}

/* That of the QEMU that runs us at this moment; nothing if it was not told. */
static void read_host_name(char *name)
{
    if (!host_item)
        return;
    outw(host_item, FIRMWARE_SELECTOR);
    read_firmware(name, host_length);
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/*
 * In sector count % pulse.disk: after a printed heartbeat the last pulse.disk records are all there. Each has the time
 * at which it was made, and that of the one before it: two guests that go on from the same memory make different ones.
 */
struct record {
    char magic[8];
    uint64_t count;
    char boot_id[BOOT_ID];
    char host[HOST_NAME];
    uint64_t made_ns, last_made_ns;
    char unused[SECTOR - 8 - 8 - BOOT_ID - HOST_NAME - 8 - 8];
};

static int open_disk(void)
{
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    if (file < 0 || read(file, boot_id, sizeof boot_id) < 0)
        fail("the boot id cannot be read");
    close(file);
    find_host_name();
    return open("/dev/vda", O_WRONLY | O_DIRECT | O_SYNC);
}

static void write_record(int disk, unsigned long records)
{
    static alignas(PAGE_BYTES) struct record record = {.magic = "LDPULSE"};
    memcpy(record.boot_id, boot_id, sizeof boot_id);
    record.count = atomic_load(&count);
    record.last_made_ns = record.made_ns;
    record.made_ns = nanoseconds();
    read_host_name(record.host);
    if (pwrite(disk, &record, SECTOR, record.count % records * SECTOR) == SECTOR)
        atomic_store(&durable, record.count);
    else if (atomic_fetch_add(&errors, 1) < COMPLAINTS)
        say("pulse cannot write record %lu: %m", record.count);
}

static void beat(int disk, unsigned long records)
{
    atomic_fetch_add(&count, 1);
    if (disk >= 0)
        write_record(disk, records);
    if (console_is_read())
        say("pulse count=%lu ms=%ld errors=%lu dirtied=%lu", atomic_load(&count), milliseconds(),
            atomic_load(&errors), atomic_load(&dirtied));
}

static void start(void *(*task)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, task, argument))
        fail("a thread cannot be started");
}

/* The console shows only what is printed: what is typed would end up in the middle of heartbeats. */
static void stop_echo(void)
{
    struct termios settings;
    if (tcgetattr(STDIN_FILENO, &settings) == 0) {
        settings.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSANOW, &settings);
    }
}

int main(void)
{
    static struct region filled, rewritten;
    const long period = (long)parameter("period", 100);
    const unsigned long records = parameter("disk", 0);
    int disk = -1;

    if (period < 1)
        fail("pulse.period must be at least 1");
    stop_echo();
    add_source(CONSOLE, STDIN_FILENO);
    add_source(LISTENER, listener());
    add_buttons();
    add_source(KERNEL, kernel_events());
    start(serve, NULL);
    if (records)
        disk = open_disk();

    filled = fill(parameter("fill", 0), FILLED_ONCE);
    rewritten = fill(parameter("size", 0), 0);
    if (filled.pages)
        start(check, &filled);
    if (rewritten.pages && parameter("rate", 0))
        start(dirty, &rewritten);

    for (long due = milliseconds();; pace(&due, period))
        beat(disk, records);
}
