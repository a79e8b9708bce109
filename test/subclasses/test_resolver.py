from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.resolver import Resolver, Subclasses


def test_pack_then_name_alone():
    resolver = Resolver()
    assert resolver.resolve('Sofa').source == 'pack'
    assert 'sofa bed' in resolver.resolve('couch').names
    assert resolver.resolve('flux capacitor') == Subclasses((), 'name')


def test_without_packs_every_class_stands_alone():
    assert Resolver(SubclassesConfig(packs=False)).resolve('dog') == Subclasses((), 'name')
