# SPDX-License-Identifier: GPL-2.0-or-later
"""Profiles of OpenVPN for tests: a good one, and tricks that must be refused."""

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUSgvmvcjrYD3ZaH5nbZXzGce5rRcwCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSECRETSECRETSECR
-----END PRIVATE KEY-----
"""
STATIC = """\
-----BEGIN OpenVPN Static key V1-----
71f9f68e6a752411805f792750817350
-----END OpenVPN Static key V1-----
"""
BLOCKS = f"""\
<ca>
{CERTIFICATE}</ca>
<cert>
{CERTIFICATE}</cert>
<key>
{KEY}</key>
"""
LINES = """\
client
dev tun
proto udp
remote vpn.example.com 1194
"""
GOOD = LINES + BLOCKS
FIRST_AFTER = len(LINES.splitlines()) + 1  # the number of a line put after LINES

_LONG = "A" * 300

# What is put after LINES, by the trick it plays, and a part of the answer.
EVIL: dict[str, tuple[str, str]] = {
    "up": ("up /tmp/x", "up runs a program"),
    "up with dashes": ("--up /tmp/x", "up runs a program"),
    "up in double quotes": ('"up" /tmp/x', "up runs a program"),
    "up in single quotes": ("'up' /tmp/x", "up runs a program"),
    "up with quoted dashes": ("'--up' /tmp/x", "up runs a program"),
    "up after spaces and a tab": (" \t up\t/tmp/x", "up runs a program"),
    "up after a lost backslash": ("\\ up /tmp/x", "up runs a program"),
    "up right after a quotation": ('"up"/tmp/x', "up runs a program"),
    "up at a carriage return": ("up\r/tmp/x", "up runs a program"),
    "up by setenv opt": ("setenv opt up /tmp/x", "up runs a program"),
    "up by setenv opt twice": ("setenv opt setenv opt up x", "up runs a program"),
    "up within a connection": (
        "<connection>\nremote vpn.example.com\nup /tmp/x\n</connection>",
        f"config:{FIRST_AFTER + 2}: up runs a program",
    ),
    "up after a block that ends early": (
        f"<tls-crypt>\n{STATIC}</tls-crypt>up /tmp/x\nup /tmp/y",
        "up runs a program",
    ),
    "up behind a comment sign in a word": ("verb#\nup /tmp/x", "'verb#'"),
    "up as an unknown option to ignore": (
        "ignore-unknown-option up\nup /tmp/x",
        "up runs a program",
    ),
    "up behind a byte order mark": ("\ufeffup /tmp/x", "'\\ufeffup'"),
    "up in capitals": ("UP /tmp/x", "'UP'"),
    "up as a block": ("<up>\n/tmp/x\n</up>", "up runs a program"),
    "up with four dashes": ("----up /tmp/x", "'--up'"),
    "up after a vertical tab": ("client\x0bup /tmp/x", "expected no such character"),
    "up after a NUL": ("client\0\nup /tmp/x", "expected no such character"),
    "up after a line separator": ("client\u2028up /tmp/x", "'client\\u2028up'"),
    "down": ("down /tmp/x", "down runs a program"),
    "route-up": ("route-up /tmp/x", "route-up runs a program"),
    "route-pre-down": ("route-pre-down /tmp/x", "route-pre-down runs a program"),
    "ipchange": ("ipchange /tmp/x", "ipchange runs a program"),
    "tls-verify": ("tls-verify /tmp/x", "tls-verify runs a program"),
    "learn-address": ("learn-address /tmp/x", "learn-address runs a program"),
    "auth-user-pass-verify": (
        "auth-user-pass-verify /tmp/x via-env",
        "auth-user-pass-verify runs a program",
    ),
    "dns-updown": ("dns-updown /tmp/x", "dns-updown runs a program"),
    "iproute": ("iproute /tmp/ip", "iproute runs a program"),
    "plugin": ("plugin /tmp/x.so", "plugin runs a program"),
    "engine": ("engine /tmp/x.so", "engine runs a program"),
    "providers": ("providers legacy default", "providers runs a program"),
    "pkcs11": ("pkcs11-providers /tmp/x.so", "pkcs11-providers needs a person"),
    "config": ("config /tmp/other.ovpn", "config reads or writes a file"),
    "cd": ("cd /tmp", "cd reads or writes a file"),
    "chroot": ("chroot /tmp", "chroot reads or writes a file"),
    "log": ("log /etc/passwd", "log reads or writes a file"),
    "log-append": ("log-append /etc/passwd", "log-append reads or writes a file"),
    "status": ("status /etc/passwd 1", "status reads or writes a file"),
    "writepid": ("writepid /etc/passwd", "writepid reads or writes a file"),
    "replay-persist": ("replay-persist /tmp/x", "replay-persist reads or writes"),
    "tls-export-cert": ("tls-export-cert /tmp", "tls-export-cert reads or writes"),
    "askpass": ("askpass /etc/shadow", "askpass reads or writes a file"),
    "pkcs12": ("pkcs12 /tmp/x.p12", "pkcs12 reads or writes a file"),
    "ca from a file": ("ca /etc/ssl/ca.pem", "ca reads a file; expected <ca>"),
    "key from a file": ("key ../key.pem", "key reads a file; expected <key>"),
    "tls-auth from a file": ("tls-auth ta.key 1", "tls-auth reads a file"),
    "crl from a file": ("crl-verify /tmp dir", "crl-verify reads a file"),
    "password from a file": (
        "auth-user-pass /etc/shadow",
        'auth-user-pass reads a file; expected auth = "FILE" in policy',
    ),
    "management": ("management 0.0.0.0 7505", "management controls the daemon"),
    "management on the tunnel": (
        "management tunnel 7505",
        "management controls the daemon",
    ),
    "management of others": ("management-client-user root", "controls the daemon"),
    "http-proxy": ("http-proxy 192.0.2.1 8080", "another way out"),
    "socks-proxy": ("socks-proxy 192.0.2.1 1080", "another way out"),
    "local address": ("local 192.0.2.1", "local asks for another way out"),
    "mark": ("mark 51820", "mark asks for another way out"),
    "bind-dev": ("bind-dev eth0", "bind-dev asks for another way out"),
    "tap": ("dev tap0", "dev 'tap0': expected tun"),
    "tap by type": ("dev-type tap", "dev-type 'tap': expected tun"),
    "device node": ("dev-node /dev/sda", "dev-node reads or writes a file"),
    "static key": ("secret static.key", "secret makes the tunnel weak"),
    "no cipher": ("cipher none", "cipher: expected a cipher"),
    "no cipher among others": ("data-ciphers AES-256-GCM:none", "data-ciphers: exp"),
    "an old cipher": ("cipher BF-CBC", "cipher: expected a cipher"),
    "no authentication": ("auth none", "auth: expected a hash"),
    "compression": ("compress lz4-v2", "compress: expected stub"),
    "compression of old": ("comp-lzo", "comp-lzo: expected no"),
    "adaptive compression": ("comp-lzo adaptive", "comp-lzo: expected no"),
    "weak suites": ("tls-cipher DEFAULT:@SECLEVEL=0", "tls-cipher: expected names"),
    "weak certificates": ("tls-cert-profile insecure", "tls-cert-profile: expected"),
    "the server is a client": ("remote-cert-tls client", "expected server"),
    "server": ("server 10.8.0.0 255.255.255.0", "server is an option of a server"),
    "mode": ("mode server", "mode is an option of a server"),
    "an option of tomorrow": ("dns-script /tmp/x", "'dns-script': expected an option"),
    "escape in a name": ("remote \x1b[31mx 1", "expected no such character"),
    "shell in a host": ("remote $(reboot) 1194", "remote '$(reboot)'"),
    "option in a host": ('remote "a b\nup" 1', "a quotation mark or backslash"),
    "loopback": ("remote 127.0.0.1 1194", "is not the address of one host"),
    "loopback in IPv6": ("remote ::1 1194", "is not the address of one host"),
    "multicast": ("remote 224.0.0.1 1194", "is not the address of one host"),
    "an interface in an address": ("remote fe80::1%eth0 1194", "no interface"),
    "port 0": ("remote vpn.example.com 0", "port '0': expected a number"),
    "a large port": ("remote vpn.example.com 70000", "port '70000'"),
    "server protocol": ("proto tcp-server", "proto 'tcp-server': expected"),
    "unknown block": ("<http-proxy-user-pass>\nx\ny\n</http-proxy-user-pass>", "file"),
    "a block without an end": ("<tls-auth>\nup /tmp/x", "'<tls-auth>' is not closed"),
    "an end without a block": ("</ca>", "'</ca>' is not closed"),
    "options in a block": (
        "<tls-crypt>\nup /tmp/x\n</tls-crypt>",
        "<tls-crypt>: expected a OpenVPN Static key V1 in PEM",
    ),
    "options in a key": (
        STATIC.join(("<tls-crypt>\n", "</tls-crypt>")).replace("71f9", "\nup /x\n"),
        "<tls-crypt>: expected a OpenVPN Static key V1 in PEM",
    ),
    "a key as an authority": (f"<extra-certs>\n{KEY}</extra-certs>", "'PRIVATE KEY'"),
    "a second authority": (f"<ca>\n{CERTIFICATE}</ca>", "<ca>: expected only once"),
    "a key with a passphrase": (
        f"<key>\n{KEY.replace('PRIVATE', 'ENCRYPTED PRIVATE')}</key>",
        "<key>: expected a key without a passphrase",
    ),
    "a long line": (f"verify-x509-name {_LONG}", "a line over 255 bytes"),
    "many words": (f"setenv {' a' * 20}", "over 16 words in a line"),
    "half a quotation": ('verify-x509-name "x', "a quotation mark or backslash"),
    "a bad escape": ("verify-x509-name \\n", "a backslash before 'n'"),
    "a filter with a newline": ('pull-filter ignore "a\nb"', "a quotation mark"),
    "a question": ("static-challenge PIN 1", "needs a person"),
}
