#!/bin/bash
# Installs what the NFS trials need: Tests/Faults/nfs_deps.sh FOLDER. As root.
#
# The server, NFS-Ganesha, and libnfs are Debian's. The client fuse-nfs is not packaged: it is built from its repository
# (a copy of which FUSE_NFS_SOURCE may name), at a fixed commit.
set -euo pipefail
folder=$1
source=${FUSE_NFS_SOURCE:-https://github.com/sahlberg/fuse-nfs}
commit=331e6fe5ea39d2353bbbe85e87b5850e4b144d9f

apt-get install -y --no-install-recommends nfs-ganesha nfs-ganesha-vfs libnfs-dev libfuse-dev fuse3 pkg-config
mkdir -p "$folder/build"
git clone --quiet "$source" "$folder/build/source"
git -C "$folder/build/source" show "$commit:fuse/fuse-nfs.c" >"$folder/build/source/fuse-nfs.c"
# In place of what its configure script finds out.
echo '#define HAVE_ST_ATIM 1' >"$folder/build/config.h"
sed 's/#if.*HAVE_ST_ATIM.*/#if 1/' "$folder/build/source/fuse-nfs.c" >"$folder/build/source/patched.c"
# shellcheck disable=SC2046
gcc -O1 -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=26 -o "$folder/fuse-nfs" "$folder/build/source/patched.c" \
    $(pkg-config --cflags --libs fuse libnfs)
rm -rf "$folder/build"
echo "built $folder/fuse-nfs"
