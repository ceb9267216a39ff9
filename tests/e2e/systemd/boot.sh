#!/bin/bash
# A real systemd as PID 1 of namespaces of its own, on a machine that may run none.
#
#   boot.sh up      stays in the foreground as PID 1's parent until that is killed
#   boot.sh clean   removes the control group that `up` made
#
# From the environment: FOLDER (empty, on the host), LEAF (name of a control group), SOURCE (the project),
# VENV and PYTHON (the virtual environment and the interpreter's prefix that it stands on).
#
# The root is an overlay over the host's whose changes lie in memory. The units are SYSTEMD_UNIT_PATH's: a handful of
# empty targets, journald, and what a test installs into /etc/systemd/system, which begins empty.
set -euo pipefail
UNITS=/run/machine-units:/etc/systemd/system:/run/systemd/system

host_cgroups() {
    mount --make-rprivate /
    mkdir -p "$FOLDER/cgroup"
    mount -t cgroup2 cgroup2 "$FOLDER/cgroup"
}

new_root() {
    local disk=$FOLDER/disk root=$FOLDER/disk/root
    mkdir -p "$disk"
    mount -t tmpfs -o size=3g tmpfs "$disk"
    mkdir "$disk"/{changes,scratch,root,venv-changes,venv-scratch}
    mount -t overlay -o "lowerdir=/,upperdir=$disk/changes,workdir=$disk/scratch" overlay "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    local place
    for place in run:755 tmp:1777 dev:755 etc/systemd/system:755; do
        mount -t tmpfs -o "mode=${place#*:}" tmpfs "$root/${place%:*}"
    done
    for place in srv var/lib; do # visible from outside by a path that SQLite can follow
        mkdir -p "$FOLDER/$place"
        mount --bind "$FOLDER/$place" "$root/$place"
    done
    devices "$root/dev"
    program "$disk" "$root/opt"
    units "$root/run/machine-units"
    mkdir "$root/run/host"
    cd "$root"
    pivot_root . run/host
    umount -l run/host
    mount --make-rshared / # as systemd does at the start of a real machine: what is mounted later, services see, too
    rm -rf /var/cache/musedrop /var/log/musedrop /etc/musedrop
}

devices() {
    local name
    for name in null zero full random urandom tty fuse; do
        [ -e "/dev/$name" ] || continue
        touch "$1/$name"
        mount --bind "/dev/$name" "$1/$name"
    done
    mkdir "$1/pts" "$1/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$1/shm"
    ln -s pts/ptmx "$1/ptmx"
    ln -s /proc/self/fd "$1/fd"
}

# /opt/musedrop is a virtual environment that any user can run, wherever the host keeps its own.
program() {
    mkdir -p "$2"/{musedrop,musedrop-source,python}
    mount --bind "$SOURCE" "$2/musedrop-source"
    mount --bind "$PYTHON" "$2/python"
    mount -t overlay -o "lowerdir=$VENV,upperdir=$1/venv-changes,workdir=$1/venv-scratch" overlay "$2/musedrop"
    sed "s|^home = .*|home = /opt/python/bin|" "$VENV/pyvenv.cfg" > "$2/musedrop/pyvenv.cfg"
    ln -sf /opt/python/bin/python3 "$2/musedrop/bin/python3"
    ln -sf python3 "$2/musedrop/bin/python"
    local site
    site=$(echo "$2"/musedrop/lib/python3*/site-packages)
    echo /opt/musedrop-source > "$site/0-musedrop.pth"
    cat > "$2/musedrop/bin/musedrop" <<'SH'
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
exec /opt/musedrop/bin/python -m "${MUSEDROP_MODULE:-agent.cli.main}" "$@"
SH
}

units() {
    mkdir "$1" "$1/default.target.wants"
    local name
    for name in default sysinit basic shutdown multi-user paths sockets timers slices local-fs remote-fs umount; do
        printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n' > "$1/$name.target"
    done
    cp /lib/systemd/system/systemd-journald{.service,.socket,-dev-log.socket} "$1"
    ln -s ../systemd-journald.service "$1/default.target.wants/"
}

case $1 in
up)
    host_cgroups
    mkdir "$FOLDER/cgroup/$LEAF"
    echo $$ > "$FOLDER/cgroup/$LEAF/cgroup.procs"
    exec unshare --cgroup --pid --uts --ipc --net --fork --kill-child=SIGKILL "$0" init
    ;;
init)
    hostname machine
    new_root
    exec env -i container=machine PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        SYSTEMD_UNIT_PATH="$UNITS" /usr/lib/systemd/systemd --system --unit=default.target --log-target=journal \
        --show-status=no < /dev/null
    ;;
clean)
    host_cgroups
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find "$FOLDER/cgroup/$LEAF" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -d "$FOLDER/cgroup/$LEAF" ] || exit 0
        sleep 0.1
    done
    exit 1
    ;;
esac
