/* A libnvidia-ml.so.1 that reports cards which do not exist, for tests on machines without one.
 *
 * It reads the folder $NVMLSTUB_DIR at every call; change a file by renaming a new one into its place.
 *   devices   a line for each device:  gpu UUID TOTAL USED RESERVED  or  mig UUID TOTAL USED RESERVED  (bytes)
 *             a mig belongs to the gpu above it; a gpu with at least one mig is in MIG mode. No such file: no driver.
 *   faults    a line for each fault:   FUNCTION DEVICE NVML_RETURN DELAY_MS  (device: its line in `devices`, -1: any)
 *   held/PID  "DEVICE BYTES": memory that process PID holds on a device, for as long as it lives;
 *             "DEVICE BYTES NUMBER": the driver calls it NUMBER, as it does for a process of a container
 *   gauges    a line for each card: DEVICE CELSIUS LOAD_PERCENT MILLIWATTS; one without a line tells none of them
 *   xids      a line for each critical event: DEVICE XID; each is reported once to a process that waits for events
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25,
    MOST = 32,
};

typedef unsigned long long Bytes;
typedef struct { char kind[4], uuid[96]; Bytes total, used, reserved; } Entry;
typedef struct { Bytes total, free, used; } Memory;
typedef struct { unsigned version; Bytes total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; Bytes used; unsigned gpu_instance, compute_instance; } Process;
typedef char Slot;
typedef Slot *Handle;
typedef struct { Handle device; Bytes type, data; unsigned gpu_instance, compute_instance; } Event;

static Slot slots[MOST];
static int users, reported;

static FILE *open_file(const char *name) {
    const char *folder = getenv("NVMLSTUB_DIR");
    char path[4096];
    if (!folder) return NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, "re");
}

static int read_entries(Entry *all) {
    FILE *file = open_file("devices");
    int count = 0;
    if (!file) return -1;
    while (count < MOST) {
        Entry *e = &all[count];
        if (fscanf(file, "%3s %95s %llu %llu %llu", e->kind, e->uuid, &e->total, &e->used, &e->reserved) != 5) break;
        count++;
    }
    fclose(file);
    return count;
}

static int inject_fault(const char *function, int device) {
    FILE *file = open_file("faults");
    char name[64];
    int which, code, delay_ms, found = SUCCESS;
    if (!file) return SUCCESS;
    while (fscanf(file, "%63s %d %d %d", name, &which, &code, &delay_ms) == 4) {
        if (strcmp(name, function) || (which != -1 && which != device)) continue;
        usleep((useconds_t)delay_ms * 1000);
        found = code;
        break;
    }
    fclose(file);
    return found;
}

/* Those who hold memory of a device, and live. Returns how many; fills in at most `most`. */
static unsigned read_holders(int device, Process *all, unsigned most) {
    char path[4096], name[sizeof "held/" + 256];
    struct dirent *entry;
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/held", getenv("NVMLSTUB_DIR"));
    DIR *folder = opendir(path);
    while (folder && (entry = readdir(folder))) {
        Bytes bytes;
        int pid = atoi(entry->d_name), which, number = pid;
        if (pid <= 0 || (kill(pid, 0) && errno == ESRCH)) continue;
        snprintf(name, sizeof name, "held/%s", entry->d_name);
        FILE *file = open_file(name);
        if (file && fscanf(file, "%d %llu %d", &which, &bytes, &number) >= 2 && which == device) {
            if (count < most) all[count] = (Process){(unsigned)number, bytes, ~0u, ~0u};
            count++;
        }
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
    return count;
}

static Bytes sum_held(int device) {
    Process all[MOST];
    unsigned count = read_holders(device, all, MOST);
    Bytes sum = 0;
    for (unsigned i = 0; i < count && i < MOST; i++) sum += all[i].used;
    return sum;
}

/* The entry behind a handle, or why there is none. */
static int look_up(const char *function, Handle handle, Entry *found) {
    Entry all[MOST];
    int index = (int)(handle - slots), code;
    if (!users) return UNINITIALIZED;
    if (!handle || index < 0 || index >= MOST) return INVALID_ARGUMENT;
    if ((code = inject_fault(function, index))) return code;
    if (index >= read_entries(all)) return GPU_IS_LOST;
    *found = all[index];
    return SUCCESS;
}

static int copy_text(const char *from, char *to, unsigned size) {
    if (strlen(from) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

/* The line of the n-th gpu; -1 if there are fewer. */
static int find_gpu_line(unsigned n) {
    Entry all[MOST];
    int count = read_entries(all);
    for (int i = 0; i < count; i++)
        if (!strcmp(all[i].kind, "gpu") && !n--) return i;
    return -1;
}

static int count_migs(int gpu) {
    Entry all[MOST];
    int count = read_entries(all), i = gpu + 1;
    while (i < count && !strcmp(all[i].kind, "mig")) i++;
    return i - gpu - 1;
}

EXPORT int nvmlInitWithFlags(unsigned flags) {
    Entry all[MOST];
    int code = inject_fault("nvmlInit", -1);
    (void)flags;
    if (code) return code;
    if (read_entries(all) < 0) return DRIVER_NOT_LOADED;
    users++;
    return SUCCESS;
}

EXPORT int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

EXPORT const char *nvmlErrorString(int code) {
    switch (code) {
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Some Error";
    }
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned size) { return copy_text("999.01", version, size); }

EXPORT int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!users) return UNINITIALIZED;
    int code = inject_fault("nvmlDeviceGetCount", -1);
    for (*count = 0; find_gpu_line(*count) >= 0;) ++*count;
    return code;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle) {
    int line = find_gpu_line(index), code;
    if (line < 0) return INVALID_ARGUMENT;
    if ((code = inject_fault("nvmlDeviceGetHandleByIndex", line))) return code;
    *handle = &slots[line];
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMigMode(Handle handle, unsigned *current, unsigned *pending) {
    Entry entry;
    int code = look_up("nvmlDeviceGetMigMode", handle, &entry);
    if (!code) *current = *pending = count_migs((int)(handle - slots)) > 0;
    return code;
}

/* One more than there are: instances may have holes between them. */
EXPORT int nvmlDeviceGetMaxMigDeviceCount(Handle handle, unsigned *count) {
    *count = (unsigned)count_migs((int)(handle - slots)) + 1;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(Handle gpu, unsigned index, Handle *mig) {
    if (index >= (unsigned)count_migs((int)(gpu - slots))) return NOT_FOUND;
    *mig = gpu + 1 + index;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetUUID(Handle handle, char *uuid, unsigned size) {
    Entry entry;
    int code = look_up("nvmlDeviceGetUUID", handle, &entry);
    return code ? code : copy_text(entry.uuid, uuid, size);
}

EXPORT int nvmlDeviceGetName(Handle handle, char *name, unsigned size) {
    Entry entry;
    int code = look_up("nvmlDeviceGetName", handle, &entry);
    return code ? code : copy_text("Stub Card", name, size);
}

/* Version 1 counts what the driver reserves as used. */
EXPORT int nvmlDeviceGetMemoryInfo(Handle handle, Memory *memory) {
    Entry entry;
    int code = look_up("nvmlDeviceGetMemoryInfo", handle, &entry);
    if (code) return code;
    memory->total = entry.total;
    memory->used = entry.used + entry.reserved + sum_held((int)(handle - slots));
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(Handle handle, MemoryV2 *memory) {
    Entry entry;
    if (memory->version != (sizeof *memory | 2u << 24)) return VERSION_MISMATCH;
    int code = look_up("nvmlDeviceGetMemoryInfo_v2", handle, &entry);
    if (code) return code;
    memory->total = entry.total;
    memory->reserved = entry.reserved;
    memory->used = entry.used + sum_held((int)(handle - slots));
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

/* The n-th figure of a device in `gauges`: Celsius, percent, milliwatts. */
static int read_gauge(const char *function, Handle handle, int n, unsigned *figure) {
    Entry entry;
    int code = look_up(function, handle, &entry), device;
    unsigned figures[3];
    if (code) return code;
    FILE *file = open_file("gauges");
    code = NOT_SUPPORTED;
    while (file && fscanf(file, "%d %u %u %u", &device, &figures[0], &figures[1], &figures[2]) == 4)
        if (device == (int)(handle - slots)) *figure = figures[n], code = SUCCESS;
    if (file) fclose(file);
    return code;
}

EXPORT int nvmlDeviceGetTemperature(Handle handle, int sensor, unsigned *celsius) {
    return sensor ? INVALID_ARGUMENT : read_gauge("nvmlDeviceGetTemperature", handle, 0, celsius);
}

EXPORT int nvmlDeviceGetUtilizationRates(Handle handle, unsigned *rates) {
    return read_gauge("nvmlDeviceGetUtilizationRates", handle, 1, rates);
}

EXPORT int nvmlDeviceGetPowerUsage(Handle handle, unsigned *milliwatts) {
    return read_gauge("nvmlDeviceGetPowerUsage", handle, 2, milliwatts);
}

/* With too little room for all, only their number. */
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(Handle handle, unsigned *count, Process *all) {
    Entry entry;
    unsigned most = *count;
    int code = look_up("nvmlDeviceGetComputeRunningProcesses", handle, &entry);
    if (code) return code;
    *count = read_holders((int)(handle - slots), all, all ? most : 0);
    return *count > most ? INSUFFICIENT_SIZE : SUCCESS;
}

EXPORT int nvmlEventSetCreate(void **set) {
    static int only;
    *set = &only;
    return users ? inject_fault("nvmlEventSetCreate", -1) : UNINITIALIZED;
}

EXPORT int nvmlDeviceRegisterEvents(Handle handle, Bytes types, void *set) {
    Entry entry;
    (void)types, (void)set;
    return look_up("nvmlDeviceRegisterEvents", handle, &entry);
}

EXPORT int nvmlEventSetWait_v2(void *set, Event *event, unsigned timeout_ms) {
    int code = inject_fault("nvmlEventSetWait", -1);
    (void)set;
    for (unsigned waited_ms = 0; !code; waited_ms += 5) {
        FILE *file = open_file("xids");
        int line = 0, device, xid, found = 0;
        while (file && !found && fscanf(file, "%d %d", &device, &xid) == 2) found = line++ == reported;
        if (file) fclose(file);
        if (found) {
            reported++;
            *event = (Event){&slots[device], 8, (Bytes)xid, ~0u, ~0u};
            return SUCCESS;
        }
        if (waited_ms >= timeout_ms) return TIMEOUT;
        usleep(5000);
    }
    return code;
}
