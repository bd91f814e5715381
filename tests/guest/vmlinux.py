# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the kernel that a bzImage holds to standard output.

Where it is is said in the kernel's Documentation/arch/x86/boot.rst: ``setup_sects``,
``payload_offset`` and ``payload_length``.  Debian packs it with xz.
"""

import lzma
import struct
import sys
from pathlib import Path

image = Path(sys.argv[1]).read_bytes()
sectors = image[0x1F1]
offset, length = struct.unpack_from("<II", image, 0x248)
start = (sectors + 1) * 512 + offset
packed = image[start : start + length]
sys.stdout.buffer.write(lzma.LZMADecompressor().decompress(packed))
