"""An asv plugin: `asv publish` makes a site that needs no other host, once `npm install` has run in this folder.

Without that, asv's pages load jQuery, flot and Bootstrap from public hosts, and stay empty where there are none.
"""

import re
import shutil
from pathlib import Path

from asv.console import log
from asv.publishing import OutputPublisher

MODULES = Path(__file__).with_name("node_modules")
FILES = {  # what asv's page asks for -> what is in the npm package
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}


class Offline(OutputPublisher):
    """What asv runs when it publishes."""

    name = "offline"
    order = 5

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        """Copy the files, and have the page ask for them."""
        if not MODULES.exists():
            log.info("The site will load its scripts from other hosts (`npm install` in dashboard/ avoids that)")
            return
        site = Path(conf.html_dir)

        def own(match):
            file = FILES[match["name"]]
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MODULES / file, site / file)
            return f'{match["attribute"]}="{file}"'

        outside = r'(?P<attribute>src|href)="https://[^"]*/(?P<name>[^"/]+\.(?:js|css))" integrity="[^"]*"'
        index = site / "index.html"
        index.write_text(re.sub(outside, own, index.read_text()))
