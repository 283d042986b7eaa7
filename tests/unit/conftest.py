"""Collections resolve as they do for Ansible: its finder has to be there before the first of them is imported."""

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader()
