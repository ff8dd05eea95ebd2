# The Debian package, by CPack: `./dev package`. Programs, units, settings and manual come from the install rules; what only a
# package has is here. The migrations are part of userd-worker.
include(GNUInstallDirs)

find_program(GZIP_PROGRAM gzip REQUIRED)
function(userd_install_compressed source name destination)
    set(output ${CMAKE_CURRENT_BINARY_DIR}/${name}.gz)
    # -n: no time in it, so that the same sources make the same package
    add_custom_command(OUTPUT ${output} COMMAND ${GZIP_PROGRAM} -9 -n -c ${source} > ${output} DEPENDS ${source})
    add_custom_target(compressed_${name} ALL DEPENDS ${output})
    install(FILES ${output} DESTINATION ${destination})
endfunction()

userd_install_compressed(${CMAKE_SOURCE_DIR}/docs/man/userd.8 userd.8 ${CMAKE_INSTALL_MANDIR}/man8)
# userd.conf(5) is made of the commented file.
find_program(PYTHON3_PROGRAM python3 REQUIRED)
set(userd_conf_page ${CMAKE_CURRENT_BINARY_DIR}/userd.conf.5)
add_custom_command(OUTPUT ${userd_conf_page}
    COMMAND ${PYTHON3_PROGRAM} -B ${CMAKE_SOURCE_DIR}/docs/man/userd_conf_page ${CMAKE_SOURCE_DIR}/etc/userd.conf > ${userd_conf_page}
    DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/userd_conf_page ${CMAKE_SOURCE_DIR}/etc/userd.conf)
userd_install_compressed(${userd_conf_page} userd.conf.5 ${CMAKE_INSTALL_MANDIR}/man5)
install(FILES ${CMAKE_SOURCE_DIR}/etc/userd.bash-completion DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME userd)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN man EXCLUDE)
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
    userd_install_compressed(${CMAKE_SOURCE_DIR}/debian/changelog changelog ${CMAKE_INSTALL_DOCDIR})
    install(FILES ${CMAKE_SOURCE_DIR}/debian/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_SET_DESTDIR ON) # some places are not below the prefix: /etc, /lib
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_NAME userd)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The userd authors <userd@packages.debian.org>")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "init-system-helpers (>= 1.54), \
systemd | systemd-standalone-sysusers | systemd-sysusers, systemd | systemd-standalone-tmpfiles | systemd-tmpfiles")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "postgresql (>= 15), prometheus")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "user service of a forum platform: gRPC, PostgreSQL, Kafka")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "userd answers who is called what: over gRPC to the platform's gateway and post
service, from a PostgreSQL database of its own, and keeps up with the other
services' events over Kafka.

A master accepts connections and hands them to isolated worker processes;
configuration and program can be changed without a lost call.")
foreach(script postinst prerm postrm conffiles)
    list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/debian/${script})
endforeach()
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
