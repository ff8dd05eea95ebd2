# shellcheck shell=bash
# `./dev image`: an OCI image that holds userd, the libraries it needs and nothing else: no shell, no package manager. Sourced by
# ./dev, which defines die and build_package.
# shellcheck disable=SC2154

# A number that no account of a host has; images of others use the same one for their user without rights.
readonly image_user=65532
readonly image_debian=bookworm

# image_libraries PACKAGE.deb: the library packages that it depends on, separated by commas.
image_libraries() {
    dpkg-deb --field "$1" Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ ]*\|zlib1g\).*/\1/p' | paste --serial --delimiters=,
}

# Writes what the packages' maintainer scripts would have made, and removes what only such scripts or people need.
image_complete_root() {
    local tree=$1
    cat "$tree"/usr/share/ca-certificates/mozilla/*.crt >"$tree/etc/ssl/certs/ca-certificates.crt"
    printf 'root:x:0:0:root:/:/nonexistent\nuserd:x:%s:%s:userd:/:/nonexistent\n' "$image_user" "$image_user" >"$tree/etc/passwd"
    printf 'root:x:0:\nuserd:x:%s:\n' "$image_user" >"$tree/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$tree/etc/nsswitch.conf"
    mkdir -p "$tree/proc" "$tree/sys" "$tree/run/userd" "$tree/usr/bin"
    chown "$image_user:$image_user" "$tree/run/userd"
    # The package's userd.conf is for a machine with systemd. A container is configured by its environment, or by a mounted file.
    rm -rf "$tree/etc/userd/userd.conf" "$tree"/usr/bin/* "$tree"/usr/sbin/dpkg-* "$tree/usr/sbin/update-ca-certificates" \
        "$tree"/{lib,usr/lib}/systemd "$tree"/usr/lib/{tmpfiles.d,sysusers.d,ssl/misc} \
        "$tree"/usr/share/{doc,man,locale,lintian,debconf,perl5,bug,pixmaps,ca-certificates,gcc,gdb,libgcrypt20,bash-completion} \
        "$tree"/var/{cache,lib,log} "$tree"/etc/{apt,debconf.conf,default,init.d}
    ln -s ../sbin/userd "$tree/usr/bin/userd"
}

# image_root PACKAGE.deb DIRECTORY: the file system of the image.
image_root() {
    local package=$1 tree=$2 log
    log=$(mktemp)
    mmdebstrap --quiet --variant=extract --mode=root --include="$(image_libraries "$package"),ca-certificates,netbase,tzdata" \
        "$image_debian" "$tree" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; die "image: mmdebstrap failed"; }
    rm -f "$log"
    dpkg-deb --extract "$package" "$tree"
    image_complete_root "$tree"
}

# image_archive LAYOUT TAR NAME:TAG...: the layout as one file, with what Docker needs to load it under these names: manifest.json, which
# its classic store reads instead of the layout, and containerd's annotation. The file still is an OCI archive for other programs.
image_archive() {
    /usr/bin/python3 -B - "$@" <<'PYTHON'
import io
import json
import pathlib
import sys
import tarfile


def path_of(blob):
    return "blobs/" + blob["digest"].replace(":", "/")


layout, names = pathlib.Path(sys.argv[1]), sys.argv[3:]
index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
manifest = json.loads((layout / path_of(index["manifests"][0])).read_text(encoding="utf-8"))
for entry in index["manifests"]:
    tag = entry["annotations"]["org.opencontainers.image.ref.name"]
    for name in names:
        if name.endswith(f":{tag}"):
            entry["annotations"]["io.containerd.image.name"] = f"docker.io/library/{name}"
docker = [{"Config": path_of(manifest["config"]), "RepoTags": names, "Layers": [path_of(layer) for layer in manifest["layers"]]}]
with tarfile.open(sys.argv[2], "w") as archive:
    for name, content in (("index.json", index), ("manifest.json", docker)):
        text = json.dumps(content).encode()
        member = tarfile.TarInfo(name)
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    archive.add(layout / "oci-layout", "oci-layout")
    archive.add(layout / "blobs", "blobs")
PYTHON
}

# image_build PACKAGE.deb DIRECTORY: an OCI layout at DIRECTORY/userd with the tags `latest` and the version, and the same as one file.
image_build() {
    local package=$1 directory=$2 version layout
    version=$(dpkg-deb --field "$package" Version)
    layout=$directory/userd
    rm -rf "$directory"
    mkdir -p "$directory"
    image_root "$package" "$directory/root"
    umoci init --layout "$layout"
    umoci new --image "$layout:latest"
    umoci insert --image "$layout:latest" "$directory/root" /
    umoci config --image "$layout:latest" --config.user "$image_user:$image_user" --config.entrypoint /usr/sbin/userd \
        --config.cmd run --config.exposedports 50053/tcp --config.exposedports 50055/tcp --config.stopsignal SIGTERM \
        --config.workingdir / --config.env PATH=/usr/sbin:/usr/bin --os linux \
        --config.label "org.opencontainers.image.title=userd" --config.label "org.opencontainers.image.version=$version" \
        --config.label "org.opencontainers.image.licenses=MIT"
    umoci tag --image "$layout:latest" "$version"
    image_archive "$layout" "$directory/userd.tar" userd:latest "userd:$version"
    rm -rf "$directory/root"
    echo "$layout:$version; as one file for 'docker load', 'podman load' or 'skopeo copy oci-archive:': $directory/userd.tar"
}
